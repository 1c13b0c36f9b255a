/* Which instruction set runs, and what this library is. All give the same bits; the best one is the default. */
#include "decoder.h"

#include <stdatomic.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static atomic_int chosen = -1;

NK_PUBLIC int nk_best_isa(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        unsigned a = 0, b, c, d; /* older compilers do not know avx512bf16 by name */
        return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5) ? NK_AVX512_BF16 : NK_AVX512;
    }
    if (avx2) return NK_AVX2;
#endif
    return NK_PORTABLE;
}

NK_PUBLIC int nk_get_isa(void) {
    int isa = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (isa < 0) {
        isa = nk_best_isa();
        atomic_store_explicit(&chosen, isa, memory_order_relaxed);
    }
    return isa;
}

NK_PUBLIC int nk_set_isa(int isa) { /* 1 if this CPU has it */
    if (isa < NK_PORTABLE || isa > nk_best_isa()) return 0;
    atomic_store_explicit(&chosen, isa, memory_order_relaxed);
    return 1;
}

const nk_isa *nk_current_isa(void) {
    switch (nk_get_isa()) {
#if defined(__x86_64__)
    case NK_AVX512_BF16:
        return &nk_isa_avx512_bf16;
    case NK_AVX512:
        return &nk_isa_avx512;
    case NK_AVX2:
        return &nk_isa_avx2;
#endif
    default:
        return &nk_isa_portable;
    }
}

const nk_decoder_isa *nk_current_decoder_isa(void) {
    switch (nk_get_isa()) {
#if defined(__x86_64__)
    case NK_AVX512_BF16:
    case NK_AVX512:
        return __builtin_cpu_supports("avx512vnni") ? &nk_decoder_avx512_vnni : &nk_decoder_avx512;
    case NK_AVX2:
        return &nk_decoder_avx2;
#endif
    default:
        return &nk_decoder_portable;
    }
}

NK_PUBLIC int nk_abi_version(void) { return NK_ABI_VERSION; }

NK_PUBLIC const char *nk_compiler(void) {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}
