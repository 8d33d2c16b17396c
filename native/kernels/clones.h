// For loops that take the time of a conversion: one clone for every instruction set, chosen at load time. Its
// clones give the same bits, as no multiply-add is fused.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define EDGEMOE_FOR_EACH_ISA __attribute__((target_clones("default", "avx2", "avx512f")))
// The same for a loop over vectors, which the compiler makes fast only where a register holds one: `call` is
// told by kLanes how many floats that is.
#define EDGEMOE_FOR_EACH_WIDTH(call, ...)                 \
    __attribute__((target("avx512f"))) void __VA_ARGS__ { \
        constexpr int kLanes = 16;                        \
        call;                                             \
    }                                                     \
    __attribute__((target("avx2"))) void __VA_ARGS__ {    \
        constexpr int kLanes = 8;                         \
        call;                                             \
    }                                                     \
    __attribute__((target("default"))) void __VA_ARGS__ { \
        constexpr int kLanes = 4;                         \
        call;                                             \
    }
#else
#define EDGEMOE_FOR_EACH_ISA
#define EDGEMOE_FOR_EACH_WIDTH(call, ...) \
    void __VA_ARGS__ {                    \
        constexpr int kLanes = 4;         \
        call;                             \
    }
#endif
