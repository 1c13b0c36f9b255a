/* Trees of guesses out of a table's rows: best-first growth, and PUCT search. What a drafter without a model does.
 *
 * Rule: nacre's drafting (row_trees.py, growth.py, puct.py) does the same in Python; its trees are these to the bit.
 * So every floating-point operation is one operation there and here, in the same order, never fused; logarithms and
 * exponentials are those of fixed_order.h, sums are sums of whole numbers, and what is equal has an order.
 *
 * Invariant: whatever a table holds, only its own memory is read, and no more than `rows` guesses are written.
 */
#include "fixed_order.h"

#include <string.h>

enum {
    WIDTH = 8,       /* tokens in a row, and rows in a bucket */
    TOKEN_BITS = 21, /* of a key, for each token of the context */
    ONE = 65535,     /* the weight of certainty */
    MOST_ROWS = 256, /* PUBLIC: most guesses of a tree */
    ROLLOUT = 4      /* tokens that a search looks ahead */
};

/* PUBLIC: mirrored by _Table in growth.py */
typedef struct {
    const uint64_t *keys;      /* [rows] in buckets of 8, 0 where there is no row; NULL: row i follows token i */
    const uint32_t *tokens;    /* [rows][8] */
    const uint16_t *weights;   /* [rows][8], falling; 0 ends a row */
    int64_t rows;              /* with keys 8 times a power of two */
    int32_t shift;             /* a key's bucket is its hash >> shift; 1 to 64 */
    int32_t longest, shortest; /* tokens of the contexts that have rows; of those known the longest counts */
    int32_t unseen;            /* weight of the tokens a row lacks; -1: what its weights lack of ONE */
} nk_rows;

typedef struct {
    uint32_t tokens[WIDTH];
    uint16_t weights[WIDTH];
    double survivals[WIDTH]; /* falling */
    int32_t count, total;    /* tokens, and the sum of their weights */
} children;

/* What makes survivals of weights: their share to a `power`; with a sharpness above 0, the race at 1 / temperature. */
typedef struct {
    double power;
    float sharpness; /* 1 / race temperature */
    uint64_t noise_key;
} rule;

static uint64_t mask_of(int length) { return ((uint64_t)1 << TOKEN_BITS * length) - 1; }

static uint64_t below(const nk_rows *t, uint64_t key, uint32_t token) {
    return (key << TOKEN_BITS | ((uint64_t)token + 1)) & mask_of(t->longest);
}

static int64_t find(const nk_rows *t, uint64_t key) {
    if (!t->keys) return key && key <= (uint64_t)t->rows ? (int64_t)key - 1 : -1;
    for (int length = t->longest; length >= t->shortest; length--) {
        const uint64_t context = key & mask_of(length), hash = context * 0x9E3779B97F4A7C15u;
        const int64_t first = (int64_t)((hash >> 1) >> (t->shift - 1)) * WIDTH; /* one bucket has a shift of 64 */
        for (int i = 0; i < WIDTH && context; i++)
            if (t->keys[first + i] == context) return first + i;
    }
    return -1;
}

static void by_chance(const nk_rows *t, double power, children *c) {
    double sum = 0;
    if (power == 1.0) {
        for (int i = 0; i < c->count; i++) c->survivals[i] = c->weights[i];
    } else if (power == 2.0) {
        for (int i = 0; i < c->count; i++) c->survivals[i] = (double)c->weights[i] * c->weights[i];
    } else {
        int top = 0;
        for (int i = 0; i < c->count; i++) top = c->weights[i] > top ? c->weights[i] : top;
        for (int i = 0; i < c->count; i++) /* whole numbers: what libraries differ by in a last bit is cut off */
            c->survivals[i] = (double)(int64_t)(pow((double)c->weights[i] / top, power) * 0x1p40);
    }
    for (int i = 0; i < c->count; i++) sum += c->survivals[i];
    const int32_t whole = t->unseen < 0 ? ONE : c->total + t->unseen;
    const double scale = (c->total < whole ? c->total : whole) / (whole * sum);
    for (int i = 0; i < c->count; i++) c->survivals[i] *= scale;
}

/* e^outside scores of tokens that the row lacks are expected above its best; from e^3.5 on it has no chance. */
static const float MOST_OUTSIDE = 3.5f;
static const double E_MOST_OUTSIDE = 33.11545195869231;

static void by_race(const rule *r, uint64_t position, children *c) {
    const float inverse = (float)r->power;
    float noise[WIDTH], scores[WIDTH], best = -INFINITY;
    int64_t masses[WIDTH], sum = 0;
    nk_log_noise(c->count, c->tokens, r->noise_key, position, noise);
    for (int i = 0; i < c->count; i++) {
        scores[i] = ln32((float)c->weights[i] / (float)ONE) * inverse - noise[i];
        best = scores[i] > best ? scores[i] : best;
    }
    for (int i = 0; i < c->count; i++) {
        const int64_t mass = exp_mass((scores[i] - best) * r->sharpness);
        const uint32_t token = c->tokens[i];
        int at = i; /* heaviest first, then the lower id */
        for (; at > 0 && (masses[at - 1] < mass || (masses[at - 1] == mass && c->tokens[at - 1] > token)); at--) {
            masses[at] = masses[at - 1];
            c->tokens[at] = c->tokens[at - 1];
        }
        masses[at] = mass;
        c->tokens[at] = token;
        sum += mass;
    }
    double kept = 1.0;
    if (c->total < ONE) {
        float outside = ln32((float)(ONE - c->total) / (float)ONE) * inverse - best;
        outside = outside < MOST_OUTSIDE ? outside : MOST_OUTSIDE;
        const double above = (double)exp_mass(outside - MOST_OUTSIDE) * (E_MOST_OUTSIDE * NK_MASS_UNIT);
        kept = (double)exp_mass(-(float)above) * NK_MASS_UNIT;
    }
    const double scale = kept / (double)sum;
    for (int i = 0; i < c->count; i++) c->survivals[i] = (double)masses[i] * scale;
}

/* The children of the node below a context, which guess the token at a position; 0 if there are none. */
static int open_row(const nk_rows *t, const rule *r, uint64_t key, uint64_t position, children *to) {
    const int64_t row = find(t, key);
    if (row < 0) return 0;
    memcpy(to->tokens, t->tokens + row * WIDTH, sizeof to->tokens);
    memcpy(to->weights, t->weights + row * WIDTH, sizeof to->weights);
    to->count = to->total = 0;
    while (to->count < WIDTH && to->weights[to->count]) to->total += to->weights[to->count++];
    if (!to->count) return 0;
    if (r->sharpness > 0)
        by_race(r, position, to);
    else
        by_chance(t, r->power, to);
    return 1;
}

/* ---- best-first growth ---- */

/* A child that may be the next guess. */
typedef struct {
    double path, above; /* the chance that it is reached; that its parent is */
    uint64_t key;       /* the parent's context */
    const children *row;
    int order, parent, level, place;
} candidate;

static int before(const candidate *a, const candidate *b) {
    return a->path > b->path || (a->path == b->path && a->order < b->order);
}

typedef struct {
    candidate held[MOST_ROWS + 1]; /* a guess takes one out and puts two in at most */
    int count;
} heap;

static void offer(heap *h, candidate c, double least) {
    c.path = c.above * c.row->survivals[c.place];
    if (!(c.path >= least)) return;
    int at = h->count++;
    for (; at > 0 && before(&c, &h->held[(at - 1) / 2]); at = (at - 1) / 2) h->held[at] = h->held[(at - 1) / 2];
    h->held[at] = c;
}

static candidate take(heap *h) {
    const candidate first = h->held[0], last = h->held[--h->count];
    int at = 0;
    for (int child = 1; child < h->count; child = 2 * at + 1) {
        if (child + 1 < h->count && before(&h->held[child + 1], &h->held[child])) child++;
        if (!before(&h->held[child], &last)) break;
        h->held[at] = h->held[child];
        at = child;
    }
    h->held[at] = last;
    return first;
}

/* The guesses made, in the order of their paths: at most `rows`, none `depth` below the start or less likely to be
 * reached than `least`. Parents are earlier guesses, -1 the start. */
NK_PUBLIC int nk_grow_rows(const nk_rows *t, uint64_t key, uint64_t position, int rows, int depth, double least,
                           double power, double sharpness, uint64_t noise_key, uint32_t *tokens, int32_t *parents,
                           double *survivals) {
    const rule r = {power, (float)sharpness, noise_key};
    children opened[MOST_ROWS], *next = opened;
    heap h;
    int made = 0;
    h.count = 0;
    rows = rows < MOST_ROWS ? rows : MOST_ROWS;
    if (open_row(t, &r, key, position, next))
        offer(&h, (candidate){.above = 1.0, .key = key, .row = next++, .parent = -1, .level = 1}, least);
    for (; made < rows && h.count; made++) {
        candidate c = take(&h);
        const uint32_t token = c.row->tokens[c.place];
        tokens[made] = token;
        parents[made] = c.parent;
        survivals[made] = c.row->survivals[c.place];
        c.order = 2 * made + 2; /* of equal paths the one found first */
        if (++c.place < c.row->count) offer(&h, c, least);
        if (c.level < depth && made + 1 < rows) {
            const uint64_t child = below(t, c.key, token);
            if (open_row(t, &r, child, position + (uint64_t)c.level, next))
                offer(&h,
                      (candidate){.above = c.path, .key = child, .row = next++, .order = c.order + 1, .parent = made,
                                  .level = c.level + 1},
                      least);
        }
    }
    return made;
}

/* ---- PUCT search ---- */

typedef struct {
    uint64_t key; /* the context below it */
    double prior, value;
    uint32_t token;
    int32_t parent, first, count, visits, place; /* its children; first is -1 until it is opened */
} node;

typedef struct {
    const nk_rows *table;
    const double *explore; /* by the parent's visits */
    node *nodes;
    int count;
    uint64_t dice;
} search;

static const rule PLAIN = {.power = 1.0};

/* A place drawn by weight: splitmix64, and its upper half as a fraction of the sum. */
static int draw(search *s, const children *c) {
    uint64_t z = s->dice += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    uint64_t rest = (((z ^ (z >> 31)) >> 32) * (uint64_t)c->total) >> 32;
    int place = 0;
    while (rest >= c->weights[place]) rest -= c->weights[place++];
    return place;
}

static int worthiest(const search *s, const node *parent) {
    const double explore = s->explore[parent->visits];
    int best = parent->first;
    double most = -INFINITY;
    for (int i = parent->first; i < parent->first + parent->count; i++) {
        const node *n = s->nodes + i;
        if (!n->visits) return i; /* nothing is worth more, and the first of equals is taken */
        const double worth = n->value / n->visits + explore * n->prior / (1 + n->visits);
        if (worth > most) {
            most = worth;
            best = i;
        }
    }
    return best;
}

/* Gives a leaf its children and draws one; the leaf itself if there are none. */
static int open_leaf(search *s, int leaf) {
    children row;
    node *n = s->nodes + leaf;
    n->first = s->count;
    if (!open_row(s->table, &PLAIN, n->key, 0, &row)) return leaf;
    n->count = row.count;
    for (int i = 0; i < row.count; i++)
        s->nodes[s->count++] = (node){.key = below(s->table, n->key, row.tokens[i]), .prior = row.survivals[i],
                                      .token = row.tokens[i], .parent = leaf, .first = -1};
    return n->first + draw(s, &row);
}

static double rollout(search *s, uint64_t key, int depth) {
    double total = 0;
    children row;
    for (; depth < ROLLOUT && open_row(s->table, &PLAIN, key, 0, &row); depth++) {
        const int place = draw(s, &row);
        total += row.survivals[place];
        key = below(s->table, key, row.tokens[place]);
    }
    return total;
}

static void iterate(search *s) {
    node *nodes = s->nodes;
    int at = 0, depth = 0;
    for (; nodes[at].count && depth < ROLLOUT; depth++) at = worthiest(s, nodes + at);
    if (nodes[at].first < 0 && depth < ROLLOUT) {
        const int leaf = at;
        at = open_leaf(s, leaf);
        depth += at != leaf;
    }
    double reward = 1.0 + rollout(s, nodes[at].key, depth);
    for (int up = at; up > 0; up = nodes[up].parent) reward += nodes[up].prior;
    for (int up = at; up >= 0; up = nodes[up].parent) {
        nodes[up].visits++;
        nodes[up].value += reward;
    }
}

/* The `most` nodes visited most, parents first; `chosen` are their places. */
static int most_visited(const search *s, int most, int32_t *chosen) {
    int count = 0;
    for (int32_t i = 1; i < s->count; i++) {
        const int visits = s->nodes[i].visits;
        if (!visits || (count == most && visits <= s->nodes[chosen[count - 1]].visits)) continue;
        int at = count < most ? count++ : count - 1;
        for (; at > 0 && s->nodes[chosen[at - 1]].visits < visits; at--) chosen[at] = chosen[at - 1];
        chosen[at] = i;
    }
    return count;
}

/* The guesses made: the most visited nodes, three in eight of the rows, and below each its likeliest follower.
 * `explore` [iterations] is what a search adds for a child's prior, by its parent's visits. -1: no memory. */
NK_PUBLIC int nk_search_rows(const nk_rows *t, uint64_t key, uint64_t seed, int iterations, int rows,
                             const double *explore, uint32_t *tokens, int32_t *parents, double *survivals) {
    search s = {.table = t, .explore = explore, .count = 1, .dice = seed};
    children row;
    if (!open_row(t, &PLAIN, key, 0, &row)) return 0;
    s.nodes = nk_scratch(((size_t)iterations * WIDTH + 1) * sizeof(node));
    if (!s.nodes) return -1;
    s.nodes[0] = (node){.key = key, .parent = -1, .first = -1, .place = -1};
    for (int i = 0; i < iterations; i++) iterate(&s);
    int32_t chosen[MOST_ROWS];
    rows = rows < MOST_ROWS ? rows : MOST_ROWS;
    const int branches = most_visited(&s, rows < 3 ? 1 : rows * 3 / 8, chosen);
    for (int i = 0; i < branches; i++) {
        node *n = s.nodes + chosen[i];
        n->place = i;
        tokens[i] = n->token;
        parents[i] = s.nodes[n->parent].place;
        survivals[i] = n->prior;
    }
    int made = branches;
    for (int i = 0; i < branches && made < rows; i++) {
        if (!open_row(t, &PLAIN, s.nodes[chosen[i]].key, 0, &row)) continue;
        int taken = 0;
        for (int other = 0; other < branches; other++) taken |= parents[other] == i && tokens[other] == row.tokens[0];
        if (taken) continue;
        tokens[made] = row.tokens[0];
        parents[made] = i;
        survivals[made++] = row.survivals[0];
    }
    return made;
}
