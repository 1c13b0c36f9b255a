/* Attention over scattered slots: checks the plan, cuts it into tiles, runs them.
 *
 * A tile is a run of adjacent rows of one sequence and some heads of one key head. The keys that all its rows see are
 * loaded once for all of them; what only some see (the ends of their ancestor lists, the beginnings of their windows)
 * is done row by row. Sharing never changes a row's arithmetic: a score is one chain over the head dimension whoever
 * computes it, the softmax runs over a row's own scores, and the weighted sum takes the keys in position order.
 */
#include "kernels.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

typedef struct {
    int64_t first_row, rows, first_head, heads, kv_head; /* rows x heads queries */
    int64_t base;                                        /* first position that any row sees */
    int64_t shared_begin, shared_end;                    /* positions that all rows see through the same slots */
    int64_t longest;                                     /* most keys of a row, outside its window included */
} tile;

typedef struct {
    nk_attention_call *c;
    int64_t rows_in_tile, heads_in_tile, head_parts;
    atomic_llong next;
    atomic_llong no_memory; /* 0, or the keys of the row that did not fit */
} job;

/* Carved out of the thread's scratch. */
typedef struct {
    double *block, *qt, *scores, *sums, *acc; /* block: keys transposed, later values */
    int64_t score_stride, padded_dim;         /* padded_dim: value_dim up to whole vectors */
} workspace;

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t length_of(const nk_attention_call *c, int64_t row) {
    return (int64_t)c->prefix_length[row] + c->ancestor_length[row];
}

static int64_t start_of(const nk_attention_call *c, int64_t row) {
    return c->window ? at_least(0, length_of(c, row) - c->window) : 0;
}

/* ---- checks ---- */

static int64_t find_bad_slot(const int32_t *slots, int64_t count, int64_t limit) {
    int32_t bad = 0;
    for (int64_t i = 0; i < count; i++) bad |= (slots[i] < 0) | ((int64_t)slots[i] >= limit);
    if (!bad) return -1;
    for (int64_t i = 0; i < count; i++)
        if (slots[i] < 0 || (int64_t)slots[i] >= limit) return i;
    return -1;
}

static int bad(nk_attention_call *c, int status, int64_t row, int64_t value) {
    c->bad_row = row;
    c->bad_value = value;
    return status;
}

static int check(nk_attention_call *c) {
    for (int64_t r = 0; r < c->rows; r++) {
        int64_t p0 = c->prefix_offset[r], p = c->prefix_length[r];
        int64_t a0 = c->ancestor_offset[r], a = c->ancestor_length[r];
        if (p < 0 || p0 < 0 || p0 + p > c->prefix_slot_count) return bad(c, NK_BAD_PREFIX, r, p0 + p);
        if (a < 0 || a0 < 0 || a0 + a > c->ancestor_slot_count) return bad(c, NK_BAD_ANCESTORS, r, a0 + a);
        if (p + a < 1) return bad(c, NK_BAD_LENGTH, r, p + a);
        /* Rows of one sequence share their prefix, those of a prompt chunk a growing one: look at what is new. */
        int64_t known = r > 0 && c->prefix_offset[r - 1] == p0 ? at_most(p, c->prefix_length[r - 1]) : 0;
        int64_t i = find_bad_slot(c->prefix_slots + p0 + known, p - known, c->slots);
        if (i >= 0) return bad(c, NK_BAD_SLOT, r, c->prefix_slots[p0 + known + i]);
        i = find_bad_slot(c->ancestor_slots + a0, a, c->slots);
        if (i >= 0) return bad(c, NK_BAD_SLOT, r, c->ancestor_slots[a0 + i]);
    }
    return NK_OK;
}

/* ---- tiles ---- */

/* How many rows from `row` on share a tile: a prefix that begins at the same place; at most `most`. */
static int64_t tile_rows(const nk_attention_call *c, int64_t row, int64_t most) {
    int64_t rows = 1;
    while (rows < most && row + rows < c->rows && c->prefix_offset[row + rows] == c->prefix_offset[row]) rows++;
    return rows;
}

static tile make_tile(const nk_attention_call *c, int64_t row, int64_t rows) {
    tile t = {.first_row = row, .rows = rows};
    const int32_t *line = c->ancestor_slots + c->ancestor_offset[row];
    int64_t prefix = c->prefix_length[row], common = c->ancestor_length[row];
    t.longest = length_of(c, row);
    t.base = t.shared_begin = start_of(c, row);
    for (int64_t r = row + 1; r < row + rows; r++) {
        const int32_t *other = c->ancestor_slots + c->ancestor_offset[r];
        int64_t same = 0, most = at_most(common, c->ancestor_length[r]);
        if (c->prefix_length[r] != prefix) most = 0; /* a prompt chunk: the shorter prefix is shared, no ancestors */
        while (same < most && line[same] == other[same]) same++;
        common = same;
        prefix = at_most(prefix, c->prefix_length[r]);
        t.longest = at_least(t.longest, length_of(c, r));
        t.base = at_most(t.base, start_of(c, r));
        t.shared_begin = at_least(t.shared_begin, start_of(c, r));
    }
    t.shared_end = prefix + common;
    t.shared_begin = at_most(t.shared_begin, t.shared_end);
    return t;
}

/* Positions begin..end of a row as one or two runs of slots. */
typedef struct {
    const int32_t *slots;
    int64_t begin, count;
} run;

static int runs_of(const nk_attention_call *c, int64_t row, int64_t begin, int64_t end, run out[2]) {
    int64_t prefix = c->prefix_length[row], split = at_least(begin, at_most(end, prefix));
    int count = 0;
    if (begin < split) out[count++] = (run){c->prefix_slots + c->prefix_offset[row] + begin, begin, split - begin};
    if (split < end)
        out[count++] = (run){c->ancestor_slots + c->ancestor_offset[row] + split - prefix, split, end - split};
    return count;
}

/* ---- one tile ---- */

static void load_queries(const nk_attention_call *c, const tile *t, double *qt) {
    for (int64_t i = 0; i < t->rows * t->heads; i++) { /* qt[i / 4][dim][i % 4] */
        int64_t at =
            (t->first_row + i / t->heads) * c->q_row_stride + (t->first_head + i % t->heads) * c->q_head_stride;
        double *to = qt + i / 4 * 4 * c->dim + i % 4;
        for (int64_t d = 0; d < c->dim; d++)
            to[4 * d] =
                c->q_type == NK_BF16 ? nk_from_bf16(((const uint16_t *)c->q)[at + d]) : ((const float *)c->q)[at + d];
    }
}

/* Scores of queries first..last (of the tile) with one run of keys. */
static void score_run(const nk_isa *isa, const nk_attention_call *c, const tile *t, const workspace *w, int64_t first,
                      int64_t last, const run *keys) {
    size_t size = c->k_type == NK_BF16 ? 2 : 4;
    const char *k = (const char *)c->k + (size_t)(t->kv_head * c->dim) * size;
    double block[4][NK_KEYS];
    for (int64_t j = 0; j < keys->count; j += NK_KEYS) {
        int64_t count = at_most(NK_KEYS, keys->count - j), ahead = at_most(NK_KEYS, keys->count - j - count);
        isa->load_keys(k, c->k_type, c->k_slot_stride, keys->slots + j, (int)count, (int)ahead, c->dim, w->block);
        for (int64_t four = first / 4; four * 4 < last; four++) {
            isa->score_block(w->block, w->qt + four * 4 * c->dim, c->dim, block);
            for (int64_t i = at_least(four * 4, first); i < at_most(four * 4 + 4, last); i++) {
                double *to = w->scores + i * w->score_stride + keys->begin + j - t->base;
                if (count == NK_KEYS)
                    memcpy(to, block[i % 4], sizeof block[0]); /* a known size: a few moves, no call */
                else
                    memcpy(to, block[i % 4], (size_t)count * sizeof(double));
            }
        }
    }
}

/* Adds the weighted values of one run of keys to the accumulators of queries first..last. */
static void add_run(const nk_isa *isa, const nk_attention_call *c, const tile *t, const workspace *w, int64_t first,
                    int64_t last, const run *keys) {
    size_t size = c->v_type == NK_BF16 ? 2 : 4;
    const char *v = (const char *)c->v + (size_t)(t->kv_head * c->value_dim) * size;
    for (int64_t j = 0; j < keys->count; j += NK_KEYS) {
        int64_t count = at_most(NK_KEYS, keys->count - j), ahead = at_most(NK_KEYS, keys->count - j - count);
        const double *weights = w->scores + keys->begin + j - t->base;
        isa->load_values(v, c->v_type, c->v_slot_stride, keys->slots + j, (int)count, (int)ahead, c->value_dim,
                         w->block);
        for (int64_t i = first; i < last; i += 8)
            isa->add_values(w->block, (int)count, w->padded_dim, weights + i * w->score_stride, w->score_stride,
                            w->acc + i * w->padded_dim, (int)at_most(8, last - i));
    }
}

typedef void (*step)(const nk_isa *, const nk_attention_call *, const tile *, const workspace *, int64_t, int64_t,
                     const run *);

/* Every row's keys in position order: its own early ones, the shared ones (all rows at once), its own late ones. */
static void over_keys(step run_step, const nk_isa *isa, const nk_attention_call *c, const tile *t, const workspace *w) {
    run runs[2];
    for (int phase = 0; phase < 3; phase++) {
        if (phase == 1) {
            int count = runs_of(c, t->first_row, t->shared_begin, t->shared_end, runs);
            for (int i = 0; i < count; i++) run_step(isa, c, t, w, 0, t->rows * t->heads, &runs[i]);
            continue;
        }
        for (int64_t r = 0; r < t->rows; r++) {
            int64_t row = t->first_row + r, start = start_of(c, row);
            int64_t begin = phase == 0 ? start : at_least(start, t->shared_end);
            int64_t end = phase == 0 ? t->shared_begin : length_of(c, row);
            int count = begin < end ? runs_of(c, row, begin, end, runs) : 0;
            for (int i = 0; i < count; i++) run_step(isa, c, t, w, r * t->heads, (r + 1) * t->heads, &runs[i]);
        }
    }
}

/* fp64 -> bf16 in one rounding: 8 of the 53 significant bits stay, the cast that follows is exact. */
static uint16_t bf16_of_double(double value) {
    union {
        double f;
        uint64_t u;
    } v = {value};
    if (isfinite(value)) v.u = (v.u + ((UINT64_C(1) << 44) - 1) + ((v.u >> 45) & 1)) & ~((UINT64_C(1) << 45) - 1);
    return nk_to_bf16((float)v.f);
}

static void store_row(const nk_attention_call *c, int64_t row, int64_t head, const double *acc, double sum) {
    int64_t at = (row * c->heads + head) * c->value_dim;
    if (c->q_type == NK_BF16) {
        for (int64_t i = 0; i < c->value_dim; i++) ((uint16_t *)c->out)[at + i] = bf16_of_double(acc[i] / sum);
    } else {
        for (int64_t i = 0; i < c->value_dim; i++) ((float *)c->out)[at + i] = (float)(acc[i] / sum);
    }
}

static int make_workspace(const nk_attention_call *c, const tile *t, workspace *w) {
    int64_t queries = (t->rows * t->heads + 3) & ~(int64_t)3;
    w->score_stride = ((t->longest - t->base + NK_CHAINS) | 7) + 9; /* padding, and rows off each other's cache sets */
    w->padded_dim = (c->value_dim + NK_CHAINS - 1) / NK_CHAINS * NK_CHAINS;
    int64_t block = at_least(c->dim, w->padded_dim) * NK_KEYS;
    int64_t qt = queries * c->dim, scores = queries * w->score_stride;
    w->block = nk_scratch((size_t)(block + qt + scores + queries + queries * w->padded_dim) * sizeof(double));
    if (!w->block) return 0;
    w->qt = w->block + block;
    w->scores = w->qt + qt;
    w->sums = w->scores + scores;
    w->acc = w->sums + queries;
    return 1;
}

static int run_tile(const nk_isa *isa, const nk_attention_call *c, const tile *t) {
    workspace w;
    int64_t queries = t->rows * t->heads;
    if (!make_workspace(c, t, &w)) return 0;
    memset(w.qt, 0, (size_t)((queries + 3) / 4 * 4 * c->dim) * sizeof(double));
    load_queries(c, t, w.qt);
    over_keys(score_run, isa, c, t, &w);
    for (int64_t i = 0; i < queries; i++) {
        int64_t row = t->first_row + i / t->heads, start = start_of(c, row);
        const float *sink = c->sinks ? c->sinks + t->first_head + i % t->heads : NULL;
        w.sums[i] = isa->softmax(w.scores + i * w.score_stride + start - t->base, length_of(c, row) - start, c->scale,
                                 c->softcap, sink);
    }
    memset(w.acc, 0, (size_t)(queries * w.padded_dim) * sizeof(double));
    over_keys(add_run, isa, c, t, &w);
    for (int64_t i = 0; i < queries; i++)
        store_row(c, t->first_row + i / t->heads, t->first_head + i % t->heads, w.acc + i * w.padded_dim, w.sums[i]);
    return 1;
}

/* Work items are (run of rows) x (key head) x (part of its query heads); each thread takes the next free one. */
static void run_items(void *context, int part, int parts) {
    job *j = context;
    const nk_attention_call *c = j->c;
    const nk_isa *isa = nk_current_isa();
    int64_t group = c->heads / c->kv_heads, item = 0, mine = atomic_fetch_add(&j->next, 1);
    (void)part, (void)parts;
    for (int64_t row = 0, rows; row < c->rows; row += rows) {
        tile t;
        rows = tile_rows(c, row, j->rows_in_tile);
        int64_t items = c->kv_heads * j->head_parts, made = 0;
        for (; mine < item + items; mine = atomic_fetch_add(&j->next, 1)) {
            int64_t kv_head = (mine - item) / j->head_parts, begin = (mine - item) % j->head_parts * j->heads_in_tile;
            if (!made) t = make_tile(c, row, rows);
            made = 1;
            t.kv_head = kv_head;
            t.first_head = kv_head * group + begin;
            t.heads = at_most(j->heads_in_tile, group - begin);
            if (!run_tile(isa, c, &t)) atomic_store(&j->no_memory, t.longest);
        }
        item += items;
    }
}

NK_PUBLIC int nk_attention(nk_attention_call *c) {
    int status = check(c);
    if (status != NK_OK) return status;
    int64_t longest = 1, group = c->heads / c->kv_heads;
    for (int64_t r = 0; r < c->rows; r++) longest = at_least(longest, length_of(c, r) - start_of(c, r));
    int64_t queries = at_least(1, at_most(NK_QUERIES, NK_SCORE_DOUBLES / longest));
    job j = {.c = c, .heads_in_tile = at_most(group, queries)};
    j.rows_in_tile = at_least(1, queries / j.heads_in_tile);
    j.head_parts = (group + j.heads_in_tile - 1) / j.heads_in_tile;
    nk_parallel(c->threads, run_items, &j);
    if (atomic_load(&j.no_memory)) return bad(c, NK_NO_MEMORY, 0, atomic_load(&j.no_memory));
    return NK_OK;
}
