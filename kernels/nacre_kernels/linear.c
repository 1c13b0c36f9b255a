/* y = x · wᵀ + bias over packed weights.
 *
 * Packed layout: blocks of NK_DEPTH inputs; in a block, panels of NK_PANEL outputs; in a panel, for every input its 32
 * weights. In bf16 a 32-bit word has an output's weights of two inputs, the first one in its high half: that is the
 * order in which instructions for pairs add, and widening is one shift or one mask. Outputs and inputs beyond the last
 * are zero. Memory is read front to back when all rows fit one chunk.
 *
 * Every accumulator is one chain of fused multiply-adds over all inputs: a block of depth ends by storing it, the next
 * one goes on from there. Where inputs and weights both are bf16, subnormal numbers count as zero, as they do for
 * instructions that take pairs of bf16.
 */
#include "kernels.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

/* Rows of a panel for so many inputs. */
static int64_t steps_of(int w_type, int64_t count) { return w_type == NK_BF16 ? (count + 1) / 2 : count; }

NK_PUBLIC int64_t nk_packed_bytes(int w_type, int64_t depth, int64_t outputs) {
    return steps_of(w_type, depth) * panels_of(outputs) * NK_ROW_BYTES;
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
        int64_t block = steps_of(w_type, k0) * panels, panel_steps = steps_of(w_type, count);
        for (int64_t n = 0; n < outputs; n++) {
            int64_t base = (block + n / NK_PANEL * panel_steps) * NK_PANEL + n % NK_PANEL; /* in words */
            if (w_type == NK_BF16) {
                for (int64_t k = 0; k < count; k++)
                    to16[2 * (base + k / 2 * NK_PANEL) + !(k % 2)] = w16[n * depth + k0 + k];
            } else {
                for (int64_t k = 0; k < count; k++) to32[base + k * NK_PANEL] = w32[n * depth + k0 + k];
            }
        }
    }
}

static int takes_pairs(const nk_isa *isa, const call *c) {
    return isa->pair_tile && c->x_type == NK_BF16 && c->w_type == NK_BF16;
}

/* Rows row0..row0+rows of the inputs k0..k0+count as tiles take them: pairs with the first one in the high half, stride
 * NK_PAIR_STRIDE; else widened to fp32, stride NK_X_STRIDE. A zero makes the last pair whole. */
static void prepare_rows(const nk_isa *isa, const call *c, int64_t row0, int64_t rows, int64_t k0, int64_t count,
                         void *to) {
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = (row0 + r) * c->depth + k0;
        const uint16_t *x16 = (const uint16_t *)c->x + from;
        uint32_t *pairs = (uint32_t *)to + r * NK_PAIR_STRIDE;
        float *wide = (float *)to + r * NK_X_STRIDE;
        if (takes_pairs(isa, c)) {
            for (int64_t k = 0; k + 1 < count; k += 2) pairs[k / 2] = (uint32_t)x16[k] << 16 | x16[k + 1];
            if (count % 2) pairs[count / 2] = (uint32_t)x16[count - 1] << 16;
            continue;
        }
        if (c->x_type == NK_BF16)
            isa->widen(x16, wide, count);
        else
            memcpy(wide, (const float *)c->x + from, (size_t)count * sizeof(float));
        wide[count] = 0.0f;
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
static int64_t cut(const nk_isa *isa, int64_t rows, int64_t panel_bytes, piece pieces[NK_ROWS]) {
    int64_t tiles = (rows + isa->max_rows - 1) / isa->max_rows;
    for (int64_t t = 0; t < tiles; t++) { /* evenly: 16 rows are 8 + 8, not 14 + 2 */
        int64_t row = rows * t / tiles, next = rows * (t + 1) / tiles;
        pieces[t] = (piece){row, next - row, panel_bytes + panel_bytes * t / tiles, NK_ROW_BYTES / tiles};
    }
    if (tiles == 1) pieces[0].ahead = NK_AHEAD_BYTES;
    return tiles;
}

/* One chunk of rows against panels first..last: all depth, in order. */
static void run_group(const nk_isa *isa, const call *c, int64_t row0, int64_t rows, int64_t first, int64_t last,
                      float *x, float *acc) {
    const int in_pairs = takes_pairs(isa, c);
    piece pieces[NK_ROWS];
    for (int64_t k0 = 0; k0 < c->depth; k0 += NK_DEPTH) {
        int64_t count = c->depth - k0 < NK_DEPTH ? c->depth - k0 : NK_DEPTH, steps = steps_of(c->w_type, count);
        int64_t panel_bytes = steps * NK_ROW_BYTES, block = steps_of(c->w_type, k0) * c->panels * NK_ROW_BYTES;
        int64_t finished = k0 + count == c->depth ? first : last; /* panels up to here wait for nothing */
        int64_t tiles = cut(isa, rows, panel_bytes, pieces);
        prepare_rows(isa, c, row0, rows, k0, count, x);
        for (int64_t panel = first; panel < last; panel++) {
            const char *w = (const char *)c->w + (size_t)(block + panel * panel_bytes);
            float *panel_acc = acc + (panel - first) * rows * NK_PANEL;
            for (const piece *p = pieces; p < pieces + tiles; p++) {
                float *to = panel_acc + p->row * NK_PANEL;
                nk_ahead ahead = {w + p->ahead, p->step};
                if (in_pairs)
                    isa->pair_tile((int)p->rows, (const uint32_t *)x + p->row * NK_PAIR_STRIDE, w, steps, to, k0 == 0,
                                   ahead);
                else
                    isa->linear_tile((int)p->rows, c->w_type, x + p->row * NK_X_STRIDE, w, count, to, k0 == 0, ahead);
            }
            if (panel - finished == NK_FINISH - 1 || (finished < last && panel == last - 1)) {
                finish_panels(isa, c, finished, panel + 1, row0, rows, acc + (finished - first) * rows * NK_PANEL);
                finished = panel + 1;
            }
        }
    }
}

/* Subnormals as zeros, until the part ends and its mode with it (pool.c). */
static void flush_subnormals(void) {
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);
#elif defined(__aarch64__)
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | 1u << 24));
#endif
}

static void run_share(void *context, int part, int parts) {
    call *c = context;
    const nk_isa *isa = nk_current_isa();
    int64_t begin = c->panels * part / parts, end = c->panels * (part + 1) / parts;
    int64_t chunks = (c->rows + NK_ROWS - 1) / NK_ROWS, chunk = (c->rows + chunks - 1) / chunks;
    int64_t most = NK_GROUP_FLOATS / (chunk * NK_PANEL), group = end - begin < most ? end - begin : most;
    if (group == 0) return;
    if (c->x_type == NK_BF16 && c->w_type == NK_BF16) flush_subnormals();
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
