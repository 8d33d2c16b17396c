// For loops that take the time of a conversion: one clone for every instruction set, chosen at load time. Its
// clones give the same bits, as no multiply-add is fused.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define EDGEMOE_FOR_EACH_ISA __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define EDGEMOE_FOR_EACH_ISA
#endif
