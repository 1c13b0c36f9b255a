/* The decoder's way through its layers; the arithmetic is in decoder_tiles.h.
 *
 * Rows go in chunks of NK_DECODER_ROWS through all layers. A matrix is shared out to threads by panels, attention by key
 * heads; everything between is too small to share.
 */
#include "decoder.h"

#include <math.h>
#include <string.h>

static int64_t rounded(int64_t count, int64_t step) { return (count + step - 1) / step * step; }

/* ---- packing ---- */

NK_PUBLIC int64_t nk_packed_8_bytes(int64_t inputs, int64_t outputs) {
    return rounded(outputs, NK_PACK) / NK_PACK * (rounded(inputs, NK_GROUP) / NK_GROUP) * NK_PACK_BYTES;
}

/* By panel and group: pairs of inputs, of each the pairs of all outputs; then the outputs' scales. `packed` is zeroed. */
NK_PUBLIC void nk_pack_8(const float *w, int64_t inputs, int64_t outputs, char *packed) {
    int64_t groups = rounded(inputs, NK_GROUP) / NK_GROUP;
    for (int64_t n = 0; n < outputs; n++) {
        for (int64_t g = 0; g < groups; g++) {
            const float *from = w + n * inputs + g * NK_GROUP;
            int64_t count = inputs - g * NK_GROUP < NK_GROUP ? inputs - g * NK_GROUP : NK_GROUP, column = n % NK_PACK;
            char *to = packed + (n / NK_PACK * groups + g) * NK_PACK_BYTES;
            float largest = 0.0f;
            for (int64_t k = 0; k < count; k++) largest = fabsf(from[k]) > largest ? fabsf(from[k]) : largest;
            float scale = largest / 127.0f;
            for (int64_t k = 0; k < count && scale > 0.0f; k++)
                to[k / 2 * 2 * NK_PACK + column * 2 + k % 2] = (char)lrintf(from[k] / scale);
            ((float *)(to + NK_GROUP * NK_PACK))[column] = scale;
        }
    }
}

/* ---- one pass ---- */

typedef struct {
    const nk_decoder *model;
    nk_decoder_pass *pass;
    const nk_decoder_isa *isa;
    int64_t first, rows;                       /* the chunk */
    int64_t width, head_pad, qkv_pad, mlp_pad; /* padded sizes of hidden state, head, queries+keys+values, gate */
    float *hidden, *wide, *gated, *attended, *scales, *turns, *part;
    int16_t *narrow;
    int64_t narrow_stride, score_stride, part_floats;
    uint16_t *kv; /* of the layer */
    /* the matrix at hand */
    const char *weight;
    float *to;
    int64_t inputs, outputs, to_stride, to_rows, add;
} state;

static void run_panels(void *context, int part, int parts) {
    const state *s = context;
    int64_t panels = rounded(s->outputs, NK_PACK) / NK_PACK, groups = rounded(s->inputs, NK_GROUP) / NK_GROUP;
    int64_t tiles = (s->to_rows + s->isa->max_rows - 1) / s->isa->max_rows;
    for (int64_t panel = panels * part / parts; panel < panels * (part + 1) / parts; panel++)
        for (int64_t t = 0; t < tiles; t++) { /* evenly */
            int64_t r0 = s->to_rows * t / tiles, r1 = s->to_rows * (t + 1) / tiles;
            s->isa->panel((int)(r1 - r0), s->weight + panel * groups * NK_PACK_BYTES, groups,
                          s->narrow + r0 * s->narrow_stride, s->narrow_stride, s->scales + r0,
                          s->to + r0 * s->to_stride + panel * NK_PACK, s->to_stride, (int)s->add);
        }
}

/* to[rows][outputs] = (add ? to : 0) + what lies narrowed · weight */
static void multiply(state *s, const void *weight, int64_t inputs, int64_t outputs, int64_t rows, float *to,
                     int64_t to_stride, int add) {
    s->weight = weight, s->inputs = inputs, s->outputs = outputs;
    s->to = to, s->to_stride = to_stride, s->to_rows = rows, s->add = add;
    nk_parallel((int)s->pass->threads, run_panels, s);
}

static void narrow_row(state *s, int64_t row, const float *from, int64_t count) {
    s->scales[row] =
        s->isa->quantise(from, count, rounded(count, NK_GROUP), s->narrow + row * s->narrow_stride);
}

static void rotate(float *head, const float *turn, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[half + i], c = turn[i], d = turn[half + i];
        head[i] = a * c - b * d;
        head[half + i] = b * c + a * d;
    }
}

static const nk_decoder_row *row_of(const state *s, int64_t r) { return s->pass->rows + s->first + r; }

static uint16_t *keys_of(const state *s, int64_t kv_head) {
    return s->kv + kv_head * 2 * s->model->slots * s->head_pad;
}

/* Rotates queries and keys and stores the chunk's keys and values, before any row reads them. */
static void store_keys(state *s) {
    const nk_decoder *m = s->model;
    for (int64_t r = 0; r < s->rows; r++) {
        float *q = s->wide + r * s->qkv_pad, *k = q + m->heads * m->head_dim, *v = k + m->kv_heads * m->head_dim;
        const float *turn = s->turns + r * m->head_dim;
        for (int64_t h = 0; h < m->heads + m->kv_heads; h++) rotate(q + h * m->head_dim, turn, m->head_dim / 2);
        for (int64_t h = 0; h < m->kv_heads; h++) {
            uint16_t *to = keys_of(s, h) + row_of(s, r)->slot * s->head_pad;
            s->isa->narrow(k + h * m->head_dim, m->head_dim, s->head_pad, to);
            s->isa->narrow(v + h * m->head_dim, m->head_dim, s->head_pad, to + m->slots * s->head_pad);
        }
    }
}

/* Up to NK_DECODER_QUERIES (row, head) pairs of one sequence and key head share the pass over the prefix. */
static void attend(const state *s, int64_t kv_head, int64_t first_row, int64_t first, int queries, float *part) {
    const nk_decoder *m = s->model;
    const int64_t group = m->heads / m->kv_heads, pad = s->head_pad;
    const uint16_t *keys = keys_of(s, kv_head), *values = keys + m->slots * pad;
    const nk_decoder_row *row[NK_DECODER_QUERIES];
    const float *query[NK_DECODER_QUERIES];
    float *to[NK_DECODER_QUERIES], sums[NK_DECODER_QUERIES];
    float *q = part, *acc = q + NK_DECODER_QUERIES * pad, *scores = acc + NK_DECODER_QUERIES * pad;
    float *own = scores + NK_DECODER_QUERIES * s->score_stride;
    int64_t longest = 0;
    for (int i = 0; i < queries; i++) {
        int64_t r = first_row + (first + i) / group, head = kv_head * group + (first + i) % group;
        row[i] = row_of(s, r);
        query[i] = s->wide + r * s->qkv_pad + head * m->head_dim;
        to[i] = s->attended + r * m->heads * m->head_dim + head * m->head_dim;
        longest = row[i]->prefix > longest ? row[i]->prefix : longest;
        s->isa->split(query[i], m->head_dim, pad, q + i * pad);
    }
    const int32_t *prefix = s->pass->prefix_slots[row[0]->sequence];
    if (longest) s->isa->scores(keys, prefix, longest, q, queries, pad, scores, s->score_stride);
    memset(acc, 0, (size_t)(queries * pad) * sizeof(float));
    for (int i = 0; i < queries; i++) {
        const int32_t *ancestors = s->pass->ancestor_slots + row[i]->ancestor;
        float *line = scores + i * s->score_stride, *behind = line + row[i]->prefix;
        size_t bytes = (size_t)row[i]->ancestors * sizeof(float);
        if (bytes) s->isa->scores(keys, ancestors, row[i]->ancestors, q + i * pad, 1, pad, own, s->score_stride);
        memcpy(behind, own, bytes);
        sums[i] = s->isa->softmax(line, row[i]->prefix + row[i]->ancestors, (float)m->score_scale);
        memcpy(own, behind, bytes);
        if (bytes) s->isa->values(values, ancestors, row[i]->ancestors, own, 0, 1, pad, acc + i * pad);
        for (int64_t j = row[i]->prefix; j < longest; j++) line[j] = 0.0f; /* the others' longer prefix */
    }
    if (longest) s->isa->values(values, prefix, longest, scores, s->score_stride, queries, pad, acc);
    for (int i = 0; i < queries; i++) s->isa->join(acc + i * pad, 1.0f / sums[i], m->head_dim, to[i]);
}

static void run_heads(void *context, int part, int parts) {
    const state *s = context;
    const nk_decoder *m = s->model;
    const int64_t group = m->heads / m->kv_heads;
    for (int64_t h = m->kv_heads * part / parts; h < m->kv_heads * (part + 1) / parts; h++) {
        for (int64_t r = 0, end; r < s->rows; r = end) {
            for (end = r + 1; end < s->rows && row_of(s, end)->sequence == row_of(s, r)->sequence;) end++;
            for (int64_t first = 0; first < (end - r) * group; first += NK_DECODER_QUERIES) {
                int64_t left = (end - r) * group - first;
                attend(s, h, r, first, (int)(left < NK_DECODER_QUERIES ? left : NK_DECODER_QUERIES),
                       s->part + part * s->part_floats);
            }
        }
    }
}

static void run_layer(state *s, int64_t index) {
    const nk_decoder *m = s->model;
    const nk_decoder_layer *layer = m->layers + index;
    const int64_t heads = m->heads * m->head_dim;
    s->kv = m->kv + index * m->kv_heads * 2 * m->slots * s->head_pad;
    for (int64_t r = 0; r < s->rows; r++) {
        s->isa->norm(s->hidden + r * s->width, layer->attention_norm, m->hidden, m->eps, s->gated);
        narrow_row(s, r, s->gated, m->hidden);
    }
    multiply(s, layer->qkv, m->hidden, heads + 2 * m->kv_heads * m->head_dim, s->rows, s->wide, s->qkv_pad, 0);
    store_keys(s);
    nk_parallel((int)s->pass->threads, run_heads, s);
    for (int64_t r = 0; r < s->rows; r++) narrow_row(s, r, s->attended + r * heads, heads);
    multiply(s, layer->out, heads, m->hidden, s->rows, s->hidden, s->width, 1);
    for (int64_t r = 0; r < s->rows; r++) {
        s->isa->norm(s->hidden + r * s->width, layer->mlp_norm, m->hidden, m->eps, s->gated);
        narrow_row(s, r, s->gated, m->hidden);
    }
    multiply(s, layer->gate_up, m->hidden, s->mlp_pad + m->intermediate, s->rows, s->wide, 2 * s->mlp_pad, 0);
    for (int64_t r = 0; r < s->rows; r++) {
        const float *gate = s->wide + r * 2 * s->mlp_pad;
        s->isa->swiglu(gate, gate + s->mlp_pad, m->intermediate, s->gated);
        narrow_row(s, r, s->gated, m->intermediate);
    }
    multiply(s, layer->down, m->intermediate, m->hidden, s->rows, s->hidden, s->width, 1);
}

/* What the rows start from: their embeddings, and the cosines and sines of their positions. */
static void begin(state *s) {
    const nk_decoder *m = s->model;
    for (int64_t r = 0; r < s->rows; r++) {
        const nk_decoder_row *row = row_of(s, r);
        float *to = s->hidden + r * s->width, *turn = s->turns + r * m->head_dim;
        float position = (float)(row->prefix + row->ancestors - 1);
        for (int64_t i = 0; i < m->hidden; i++) to[i] = nk_from_bf16(m->embedding[row->token * m->hidden + i]);
        for (int64_t i = 0; i < m->head_dim / 2; i++) {
            float angle = position * m->frequencies[i];
            turn[i] = cosf(angle) * (float)m->rotary_scale;
            turn[m->head_dim / 2 + i] = sinf(angle) * (float)m->rotary_scale;
        }
    }
}

/* Logits of the chunk's rows that want them; returns how many of `keep` are done. */
static int64_t finish(state *s, int64_t done) {
    const nk_decoder *m = s->model;
    const nk_decoder_pass *p = s->pass;
    int64_t end = done, vocab = rounded(m->vocab, NK_PACK);
    for (; end < p->keep_count && p->keep[end] < s->first + s->rows; end++) {
        s->isa->norm(s->hidden + (p->keep[end] - s->first) * s->width, m->final_norm, m->hidden, m->eps, s->gated);
        narrow_row(s, end - done, s->gated, m->hidden);
    }
    if (end > done) multiply(s, m->head, m->hidden, m->vocab, end - done, p->logits + done * vocab, vocab, 0);
    return end;
}

static int check(const nk_decoder *m, nk_decoder_pass *p, int64_t *longest) {
    *longest = 0;
    for (int64_t r = 0; r < p->row_count; r++) {
        const nk_decoder_row *row = p->rows + r;
        p->bad_row = r;
        if (row->token < 0 || row->token >= m->vocab) return NK_DECODE_BAD_TOKEN;
        if (row->slot < 0 || row->slot >= m->slots) return NK_DECODE_BAD_SLOT;
        if (row->sequence < 0 || row->sequence >= p->sequence_count || row->prefix < 0 || row->ancestor < 0 ||
            row->prefix > p->prefix_counts[row->sequence] || row->ancestors < 0 ||
            row->ancestor + (int64_t)row->ancestors > p->ancestor_count || row->prefix + row->ancestors < 1)
            return NK_DECODE_BAD_SPAN;
        *longest = row->prefix + row->ancestors > *longest ? row->prefix + row->ancestors : *longest;
    }
    p->bad_row = -1;
    for (int64_t i = 0; i < p->sequence_count; i++)
        for (int64_t j = 0; j < p->prefix_counts[i]; j++)
            if ((uint64_t)p->prefix_slots[i][j] >= (uint64_t)m->slots) return NK_DECODE_BAD_SLOT;
    for (int64_t j = 0; j < p->ancestor_count; j++)
        if ((uint64_t)p->ancestor_slots[j] >= (uint64_t)m->slots) return NK_DECODE_BAD_SLOT;
    for (int64_t i = 0; i < p->keep_count; i++) {
        p->bad_row = p->keep[i];
        if (p->keep[i] < 0 || p->keep[i] >= p->row_count || (i && p->keep[i] <= p->keep[i - 1]))
            return NK_DECODE_BAD_SPAN;
    }
    return NK_DECODED;
}

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

NK_PUBLIC int nk_decode(const nk_decoder *m, nk_decoder_pass *p) {
    int64_t longest;
    int status = check(m, p, &longest);
    if (status) return status;
    state s = {.model = m, .pass = p, .isa = nk_current_decoder_isa()};
    const int64_t rows = p->row_count < NK_DECODER_ROWS ? p->row_count : NK_DECODER_ROWS;
    const int64_t heads = m->heads * m->head_dim;
    s.width = rounded(m->hidden, NK_PACK);
    s.head_pad = rounded(m->head_dim, 32);
    s.qkv_pad = rounded(heads + 2 * m->kv_heads * m->head_dim, NK_PACK);
    s.mlp_pad = rounded(m->intermediate, NK_PACK);
    s.score_stride = rounded(longest + 16, 16);
    s.part_floats = 2 * NK_DECODER_QUERIES * s.head_pad + (NK_DECODER_QUERIES + 1) * s.score_stride;
    const int64_t narrow = rounded(most(most(m->hidden, heads), m->intermediate), NK_GROUP);
    s.narrow_stride = narrow + 32; /* rows apart in the cache */
    const int64_t wide = most(s.qkv_pad, 2 * s.mlp_pad);
    int64_t floats[] = {rows * s.width, rows * wide, narrow,           rows * heads,
                        rows,           rows * m->head_dim, p->threads * s.part_floats, rows * s.narrow_stride / 2};
    float **place[] = {&s.hidden, &s.wide, &s.gated, &s.attended, &s.scales, &s.turns, &s.part, NULL};
    int64_t total = 0;
    for (int i = 0; i < 8; i++) total += rounded(floats[i], 16);
    float *memory = nk_scratch((size_t)total * sizeof(float));
    if (!memory) return NK_DECODE_NO_MEMORY;
    for (int i = 0; i < 7; memory += rounded(floats[i], 16), i++) *place[i] = memory;
    s.narrow = (int16_t *)memory;
    int64_t done = 0;
    for (s.first = 0; s.first < p->row_count; s.first += s.rows) {
        s.rows = p->row_count - s.first < NK_DECODER_ROWS ? p->row_count - s.first : NK_DECODER_ROWS;
        begin(&s);
        for (int64_t layer = 0; layer < m->layer_count; layer++) run_layer(&s, layer);
        done = finish(&s, done);
    }
    return NK_DECODED;
}
