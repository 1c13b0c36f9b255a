/* y = x · wᵀ + bias over packed weights.
 *
 * Packed layout: blocks of NK_DEPTH inputs; in a block, panels of NK_PANEL outputs; in a panel, for every input its 32
 * weights. In bf16 the weights of outputs i and i + 16 share one 32-bit word, so widening is one shift and one mask.
 * Outputs beyond N are zero. Memory is read front to back when all rows fit one chunk.
 *
 * Every accumulator is one chain over all inputs: a block of depth ends by storing it, the next one goes on from there.
 */
#include "kernels.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
    const void *x, *w;
    const float *bias;
    void *y;
    int x_type, w_type;
    int64_t rows, depth, outputs, panels;
    atomic_int failed;
} call;

static int64_t panels_of(int64_t outputs) { return (outputs + NK_PANEL - 1) / NK_PANEL; }

static size_t element_bytes(int type) { return type == NK_BF16 ? 2 : 4; }

NK_PUBLIC int64_t nk_packed_bytes(int w_type, int64_t depth, int64_t outputs) {
    return (int64_t)element_bytes(w_type) * depth * panels_of(outputs) * NK_PANEL;
}

/* Large weights ask for large pages before they are first touched: fewer page-table walks while they stream by. */
NK_PUBLIC void nk_prefer_large_pages(void *memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    (void)madvise(memory, (size_t)bytes, MADV_HUGEPAGE); /* a wish: nothing depends on its being granted */
#else
    (void)memory, (void)bytes;
#endif
}

NK_PUBLIC void nk_pack(const void *w, int w_type, int64_t depth, int64_t outputs, void *packed) {
    int64_t panels = panels_of(outputs);
    const uint16_t *w16 = w;
    const uint32_t *w32 = w;
    uint16_t *to16 = packed;
    uint32_t *to32 = packed;
    memset(packed, 0, (size_t)nk_packed_bytes(w_type, depth, outputs));
    for (int64_t k0 = 0; k0 < depth; k0 += NK_DEPTH) {
        int64_t count = depth - k0 < NK_DEPTH ? depth - k0 : NK_DEPTH;
        for (int64_t n = 0; n < outputs; n++) {
            int64_t column = n % NK_PANEL, base = (k0 * panels + n / NK_PANEL * count) * NK_PANEL;
            if (w_type == NK_BF16) {
                int64_t place = column < 16 ? 2 * column : 2 * (column - 16) + 1;
                for (int64_t k = 0; k < count; k++) to16[base + k * NK_PANEL + place] = w16[n * depth + k0 + k];
            } else {
                for (int64_t k = 0; k < count; k++) to32[base + k * NK_PANEL + column] = w32[n * depth + k0 + k];
            }
        }
    }
}

/* Rows row0..row0+rows of the inputs k0..k0+count, widened to fp32 with stride NK_X_STRIDE. */
static void widen_rows(const nk_isa *isa, const call *c, int64_t row0, int64_t rows, int64_t k0, int64_t count,
                       float *to) {
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = (row0 + r) * c->depth + k0;
        if (c->x_type == NK_BF16)
            isa->widen((const uint16_t *)c->x + from, to + r * NK_X_STRIDE, count);
        else
            memcpy(to + r * NK_X_STRIDE, (const float *)c->x + from, (size_t)count * sizeof(float));
    }
}

/* Row by row over several panels: rows of y are far apart, and short pieces of many rows thrash the caches. */
static void finish_panels(const nk_isa *isa, const call *c, int64_t first, int64_t last, int64_t row0, int64_t rows,
                          const float *acc) {
    int64_t column = first * NK_PANEL, end = last * NK_PANEL < c->outputs ? last * NK_PANEL : c->outputs;
    const float *bias = c->bias ? c->bias + column : NULL;
    for (int64_t r = 0; r < rows; r++) {
        size_t at = (size_t)(row0 + r) * (size_t)c->outputs + (size_t)column;
        isa->finish(acc + r * NK_PANEL, rows * NK_PANEL, bias, (char *)c->y + at * element_bytes(c->x_type), c->x_type,
                    end - column);
    }
}

/* One tile of a chunk: its rows, and where it reads ahead from and by how much. */
typedef struct {
    int64_t row, rows, ahead, step;
} piece;

/* Cuts a chunk into tiles, once for all panels: a 64-bit division takes some 40 to 90 cycles, and four of them for
 * every tile of every panel showed. Returns how many there are.
 *
 * Reading ahead of the hardware keeps memory busy while many rows keep the multipliers busy. A lone tile prefetches
 * some kilobytes ahead of itself; of several tiles over one panel each fetches its part of the next panel. */
static int64_t cut(const nk_isa *isa, int64_t rows, int64_t panel_bytes, int64_t row_bytes, piece pieces[NK_ROWS]) {
    int64_t tiles = (rows + isa->max_rows - 1) / isa->max_rows;
    for (int64_t t = 0; t < tiles; t++) { /* evenly: 16 rows are 8 + 8, not 14 + 2 */
        int64_t row = rows * t / tiles, next = rows * (t + 1) / tiles;
        pieces[t] = (piece){row, next - row, panel_bytes + panel_bytes * t / tiles, row_bytes / tiles};
    }
    if (tiles == 1) pieces[0].ahead = NK_AHEAD_BYTES;
    return tiles;
}

/* One chunk of rows against panels first..last: all depth, in order. */
static void run_group(const nk_isa *isa, const call *c, int64_t row0, int64_t rows, int64_t first, int64_t last,
                      float *x, float *acc) {
    int64_t row_bytes = NK_PANEL * (int64_t)element_bytes(c->w_type);
    piece pieces[NK_ROWS];
    for (int64_t k0 = 0; k0 < c->depth; k0 += NK_DEPTH) {
        int64_t count = c->depth - k0 < NK_DEPTH ? c->depth - k0 : NK_DEPTH, panel_bytes = count * row_bytes;
        int64_t finished = k0 + count == c->depth ? first : last; /* panels up to here wait for nothing */
        int64_t tiles = cut(isa, rows, panel_bytes, row_bytes, pieces);
        widen_rows(isa, c, row0, rows, k0, count, x);
        for (int64_t panel = first; panel < last; panel++) {
            const char *w = (const char *)c->w + (size_t)(k0 * c->panels * row_bytes + panel * panel_bytes);
            float *panel_acc = acc + (panel - first) * rows * NK_PANEL;
            for (const piece *p = pieces; p < pieces + tiles; p++)
                isa->linear_tile((int)p->rows, c->w_type, x + p->row * NK_X_STRIDE, w, count,
                                 panel_acc + p->row * NK_PANEL, k0 == 0, (nk_ahead){w + p->ahead, p->step});
            if (panel - finished == NK_FINISH - 1 || (finished < last && panel == last - 1)) {
                finish_panels(isa, c, finished, panel + 1, row0, rows, acc + (finished - first) * rows * NK_PANEL);
                finished = panel + 1;
            }
        }
    }
}

static void run_share(void *context, int part, int parts) {
    call *c = context;
    const nk_isa *isa = nk_current_isa();
    int64_t begin = c->panels * part / parts, end = c->panels * (part + 1) / parts;
    int64_t chunks = (c->rows + NK_ROWS - 1) / NK_ROWS, chunk = (c->rows + chunks - 1) / chunks;
    int64_t most = NK_GROUP_FLOATS / (chunk * NK_PANEL), group = end - begin < most ? end - begin : most;
    if (group == 0) return;
    float *x = nk_scratch((size_t)(chunk * NK_X_STRIDE + group * chunk * NK_PANEL) * sizeof(float));
    if (!x) {
        atomic_store(&c->failed, 1);
        return;
    }
    for (int64_t row0 = 0; row0 < c->rows; row0 += chunk) {
        int64_t rows = c->rows - row0 < chunk ? c->rows - row0 : chunk;
        for (int64_t first = begin; first < end; first += group) {
            int64_t last = first + group < end ? first + group : end;
            run_group(isa, c, row0, rows, first, last, x, x + chunk * NK_X_STRIDE);
        }
    }
}

NK_PUBLIC int nk_linear(const void *x, int x_type, const void *packed, int w_type, const float *bias, void *y,
                        int64_t rows, int64_t depth, int64_t outputs, int threads) {
    call c = {x, packed, bias, y, x_type, w_type, rows, depth, outputs, panels_of(outputs), 0};
    if (rows > 0) nk_parallel(threads, run_share, &c);
    return atomic_load(&c.failed);
}
