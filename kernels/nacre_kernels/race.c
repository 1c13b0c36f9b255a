/* The race noise and the best perturbed scores of a row, bit for bit as numpy computes them in nacre's sampling.
 *
 * Rule: every floating-point operation of the definition is one operation here, in the same order, never fused. What is
 * defined: Philox-4x32-10 counters; level 0, which gives blocks of 32 ids their minimum and winner; level 1, which
 * gives the other ids what they have more; the natural logarithm as one fixed polynomial.
 *
 * Method: winners' scores are certain and settle a bound; a block is looked at only if its bound is not below it.
 */
#include "fixed_order.h"

#include <string.h>

enum { LANES = 32, BLOCK = 32, PURPOSE_RACE = 1 }; /* loops of 16 would be unrolled, not vectorised */

#define LOOP for (int i = 0; i < LANES; i++)

typedef struct {
    uint32_t key[2], position[2];
} stream;

NK_INLINE void philox(const uint32_t counters[LANES], stream s, uint32_t purpose, uint32_t to[4][LANES]) {
    uint32_t a[LANES], b[LANES], c[LANES], d[LANES], k0 = s.key[0], k1 = s.key[1];
    LOOP {
        a[i] = counters[i];
        b[i] = s.position[0];
        c[i] = s.position[1];
        d[i] = purpose;
    }
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        LOOP {
            uint64_t first = (uint64_t)0xD2511F53u * a[i], second = (uint64_t)0xCD9E8D57u * c[i];
            a[i] = (uint32_t)(second >> 32) ^ b[i] ^ k0;
            b[i] = (uint32_t)second;
            c[i] = (uint32_t)(first >> 32) ^ d[i] ^ k1;
            d[i] = (uint32_t)first;
        }
    }
    LOOP {
        to[0][i] = a[i];
        to[1][i] = b[i];
        to[2][i] = c[i];
        to[3][i] = d[i];
    }
}

NK_INLINE float race_exp(uint32_t word) {
    int direct = word < 0x4AFB0CCCu;
    float u = (float)(direct ? word : 0xFFFFFFFFu - word) * 0x1p-32f + 0x1p-33f;
    float exponent, x = split(u, &exponent);
    return -ln_one_plus(direct ? -u : x, direct ? 0.0f * exponent : exponent);
}

/* Level 0 of LANES blocks: the minimum, its logarithm, and which of the 32 ids attains it. */
NK_INLINE void level_0(int64_t block, stream s, float minimum[LANES], float log_minimum[LANES],
                       uint32_t winner[LANES]) {
    uint32_t counters[LANES], words[4][LANES];
    LOOP counters[i] = (uint32_t)(block + i);
    philox(counters, s, PURPOSE_RACE << 8, words);
    LOOP {
        minimum[i] = race_exp(words[0][i]) * (1.0f / BLOCK);
        log_minimum[i] = ln32(minimum[i]);
        winner[i] = words[1][i] & (BLOCK - 1);
    }
}

/* The logarithms of the noise of LANES ids that are no winners. */
NK_INLINE void level_1(const int32_t ids[LANES], stream s, const float *minimum, float log_noise[LANES]) {
    uint32_t counters[LANES], words[4][LANES];
    float least[LANES];
    LOOP counters[i] = (uint32_t)ids[i] >> 2;
    for (int i = 0; i < LANES; i++) least[i] = minimum[ids[i] / BLOCK];
    philox(counters, s, PURPOSE_RACE << 8 | 1, words);
    LOOP {
        uint32_t low = ids[i] & 1 ? words[1][i] : words[0][i], high = ids[i] & 1 ? words[3][i] : words[2][i];
        log_noise[i] = ln32(race_exp(ids[i] & 2 ? high : low) + least[i]);
    }
}

/* The best so far, sorted: greater score first, then lower id. */
typedef struct {
    int64_t *ids;
    float *scores;
    int count, top;
} best;

NK_INLINE void offer(best *b, int64_t id, float score) {
    if (!(score >= -3.40282347e38f)) return;
    int full = b->count == b->top, at = full ? b->top - 1 : b->count;
    if (full && (score < b->scores[at] || (score == b->scores[at] && id > b->ids[at]))) return;
    while (at > 0 && (score > b->scores[at - 1] || (score == b->scores[at - 1] && id < b->ids[at - 1]))) {
        b->ids[at] = b->ids[at - 1];
        b->scores[at] = b->scores[at - 1];
        at--;
    }
    b->ids[at] = id;
    b->scores[at] = score;
    b->count += !full;
}

NK_INLINE float at_least(const best *b) { return b->count == b->top ? b->scores[b->top - 1] : -INFINITY; }

/* The greatest logit of each block and of all; NaN if there is one. */
NK_INLINE float block_maxima(const float *logits, int64_t vocab, float *maxima) {
    float lanes[LANES], most = -INFINITY;
    int32_t unsound[LANES] = {0};
    for (int64_t first = 0; first < vocab; first += BLOCK, maxima++) {
        if (first + BLOCK <= vocab) {
            LOOP unsound[i] |= logits[first + i] != logits[first + i];
            memcpy(lanes, logits + first, sizeof lanes);
        } else {
            for (int i = 0; i < LANES; i++) lanes[i] = first + i < vocab ? logits[first + i] : -INFINITY;
            LOOP unsound[i] |= lanes[i] != lanes[i];
        }
        for (int half = LANES / 2; half; half /= 2)
            for (int i = 0; i < half; i++) lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
        *maxima = lanes[0];
        most = lanes[0] > most ? lanes[0] : most;
    }
    for (int i = 0; i < LANES; i++)
        if (unsound[i]) return NAN;
    return most;
}

/* A margin of dozens of roundings: what a bound lets through is scored exactly. */
NK_INLINE float reach(float score) { return score - 4e-6f * (fabsf(score) + 32.0f); }

typedef struct {
    const float *logits, *maxima; /* by id, by block */
    float *minimum, *log_minimum; /* level 0 by block */
    uint32_t *winner;
    int32_t *found;
    int64_t vocab, blocks;
    float inverse;
    stream noise;
} row;

/* Scores the ids with a logit from `from` up to below `to` that may yet be among the best; winners have been scored. */
NK_INLINE void contend(const row *r, float from, float to, best *b) {
    int64_t count = 0;
    const float bound = reach(at_least(b)), inverse = r->inverse;
    for (int64_t block = 0; block < r->blocks; block++) {
        const float most = r->maxima[block], least = r->log_minimum[block];
        if (most < from || most * inverse - least < bound) continue;
        const int winner = (int)r->winner[block];
        const int64_t first = block * BLOCK;
        const int ids = r->vocab - first < BLOCK ? (int)(r->vocab - first) : BLOCK;
        const float *x = r->logits + first;
        if (ids == BLOCK) { /* mostly there is none, or the winner alone */
            int32_t worth[LANES], any = 0;
            LOOP worth[i] = (x[i] * inverse - least >= bound) & (x[i] >= from) & (x[i] < to) & (i != winner);
            LOOP any |= worth[i];
            if (!any) continue;
        }
        for (int i = 0; i < ids; i++) {
            r->found[count] = (int32_t)(first + i);
            count += (x[i] * inverse - least >= bound) & (x[i] >= from) & (x[i] < to) & (i != winner);
        }
    }
    for (int64_t i = count; i % LANES; i++) r->found[i] = 0;
    for (int64_t at = 0; at < count; at += LANES) {
        float log_noise[LANES];
        level_1(r->found + at, r->noise, r->minimum, log_noise);
        for (int64_t i = at; i < at + LANES && i < count; i++)
            offer(b, r->found[i], r->logits[r->found[i]] * inverse - log_noise[i - at]);
    }
}

enum { NEAR = 4 }; /* nats below the greatest: these are likely to be best, and settle the bound for the rest */

NK_INLINE void race(row *r, float most, int known, best *b) {
    for (int64_t block = 0; block < r->blocks && !known; block += LANES)
        level_0(block, r->noise, r->minimum + block, r->log_minimum + block, r->winner + block);
    for (int64_t block = 0; block < r->blocks; block++) {
        int64_t id = block * BLOCK + r->winner[block];
        if (id < r->vocab) offer(b, id, r->logits[id] * r->inverse - r->log_minimum[block]);
    }
    float near = most - NEAR / r->inverse;
    contend(r, near, INFINITY, b);
    contend(r, -INFINITY, near, b);
}

NK_INLINE void greatest(const float *logits, int64_t vocab, const float *maxima, best *b) {
    for (int64_t first = 0; first < vocab; first += BLOCK, maxima++) {
        if (*maxima < at_least(b)) continue;
        for (int64_t id = first; id < first + BLOCK && id < vocab; id++)
            if (logits[id] >= at_least(b)) offer(b, id, logits[id]);
    }
}

typedef struct {
    const float *logits, *inverse;
    const uint64_t *keys, *positions;
    int64_t *ids;
    float *scores;
    int64_t stride, rows, vocab;
    int top;
} call;

NK_INLINE void run(const call *c, float *scratch) {
    const int64_t blocks = (c->vocab + BLOCK - 1) / BLOCK, step = blocks + LANES;
    int64_t last = -1; /* the row whose level 0 is at hand */
    for (int64_t i = 0; i < c->rows; i++) {
        const uint64_t key = c->keys[i], position = c->positions[i];
        row r = {.logits = c->logits + i * c->stride, .maxima = scratch, .minimum = scratch + step,
                 .log_minimum = scratch + 2 * step, .winner = (uint32_t *)(scratch + 3 * step),
                 .found = (int32_t *)(scratch + 4 * step), .vocab = c->vocab, .blocks = blocks,
                 .inverse = c->inverse[i],
                 .noise = {{(uint32_t)key, (uint32_t)(key >> 32)}, {(uint32_t)position, (uint32_t)(position >> 32)}}};
        best b = {c->ids + i * c->top, c->scores + i * c->top, 0, c->top};
        float most = block_maxima(r.logits, c->vocab, scratch);
        int greedy = r.inverse == 0.0f;
        if (isfinite(greedy ? most : most * r.inverse)) {
            if (greedy) {
                greatest(r.logits, c->vocab, scratch, &b);
            } else { /* rivals for a position lie together, and share its noise */
                race(&r, most, last >= 0 && key == c->keys[last] && position == c->positions[last], &b);
                last = i;
            }
        }
        for (; b.count < b.top; b.count++) {
            b.ids[b.count] = -1;
            b.scores[b.count] = -INFINITY;
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) static void run_avx512(const call *c, float *to) {
    run(c, to);
}
__attribute__((target("avx2,fma"))) static void run_avx2(const call *c, float *to) { run(c, to); }
#endif
static void run_portable(const call *c, float *to) { run(c, to); }

/* The best `top` ids and scores of every row, logit * inverse - ln S(key, position, id), best first; filled up with -1
 * and minus infinity. An inverse of 0 asks for the greatest logits instead. Rows that hold a NaN, or whose greatest is not finite, offer none. */
NK_PUBLIC int nk_race_top(const float *logits, int64_t stride, int64_t rows, int64_t vocab, const float *inverse,
                          const uint64_t *keys, const uint64_t *positions, int top, int64_t *ids, float *scores) {
    const call c = {logits, inverse, keys, positions, ids, scores, stride, rows, vocab, top};
    const int64_t blocks = (vocab + BLOCK - 1) / BLOCK;
    float *scratch = nk_scratch((size_t)(4 * (blocks + LANES) + (blocks + 1) * BLOCK) * sizeof(float));
    if (!scratch) return NK_NO_MEMORY;
    switch (nk_get_isa()) {
#if defined(__x86_64__)
    case NK_AVX512:
        run_avx512(&c, scratch);
        break;
    case NK_AVX2:
        run_avx2(&c, scratch);
        break;
#endif
    default:
        run_portable(&c, scratch);
    }
    return NK_OK;
}

NK_INLINE void noises(int count, const uint32_t *ids, stream s, float *to) {
    for (int at = 0; at < count; at += LANES) {
        const int many = count - at < LANES ? count - at : LANES;
        uint32_t blocks[LANES], quads[LANES], first[4][LANES], second[4][LANES];
        LOOP {
            const uint32_t id = ids[at + (i < many ? i : 0)];
            blocks[i] = id / BLOCK;
            quads[i] = id >> 2;
        }
        philox(blocks, s, PURPOSE_RACE << 8, first);
        philox(quads, s, PURPOSE_RACE << 8 | 1, second);
        for (int i = 0; i < many; i++) {
            const uint32_t id = ids[at + i];
            const float minimum = race_exp(first[0][i]) * (1.0f / BLOCK);
            const int wins = (first[1][i] & (BLOCK - 1)) == (id & (BLOCK - 1));
            to[at + i] = ln32(wins ? minimum : race_exp(second[id & 3][i]) + minimum);
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) static void noises_avx512(
    int count, const uint32_t *ids, stream s, float *to) {
    noises(count, ids, s, to);
}
__attribute__((target("avx2,fma"))) static void noises_avx2(int count, const uint32_t *ids, stream s, float *to) {
    noises(count, ids, s, to);
}
#endif

void nk_log_noise(int count, const uint32_t *ids, uint64_t key, uint64_t position, float *to) {
    const stream s = {{(uint32_t)key, (uint32_t)(key >> 32)}, {(uint32_t)position, (uint32_t)(position >> 32)}};
    switch (nk_get_isa()) {
#if defined(__x86_64__)
    case NK_AVX512:
        noises_avx512(count, ids, s, to);
        break;
    case NK_AVX2:
        noises_avx2(count, ids, s, to);
        break;
#endif
    default:
        noises(count, ids, s, to);
    }
}
