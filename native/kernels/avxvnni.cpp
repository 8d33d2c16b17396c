// AVX-VNNI, which processors of laptops have without AVX-512: as AVX2, but one instruction for the dot
// product of a quad of columns. EDGEMOE_AVXVNNI_BY_AVX512 takes AVX-512's instruction of the same width and
// meaning, so that these kernels can be tested and timed on processors that have only that. It is written as
// assembly: the compiler, allowed it, would use others of AVX-512 as well, and more registers.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx2.h"

constexpr int kVectorsTogether = 2;
constexpr bool has_kernels_of(Format) { return true; }

inline I add_dots(I sum, I w, I x) {
#ifdef EDGEMOE_AVXVNNI_BY_AVX512
    asm("vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "xm"(x));
    return sum;
#else
    return _mm256_dpbusd_avx_epi32(sum, w, x);
#endif
}

#include "kernels/vnni_sums.h"

// Sixteen products are at most 16 * 7 * 128 = 14336, which the lower half of a lane holds. The upper half of
// a scale is zero.
struct HalvedSums {
    struct Scales {
        I first, second;
    };
    static Scales scales(I first, I second) { return {first, second}; }

    I first = set1_i(0), second = set1_i(0);

    template <int g>
    void add(I w, const std::int8_t* x) {
        std::int32_t quad;
        __builtin_memcpy(&quad, x, sizeof quad);
        I& sum = g < kQuads / 2 ? first : second;
        sum = add_dots(sum, w, set1_i(quad));
    }
    I total(const Scales& by) const {
        return add_lanes(multiply_words(first, by.first), multiply_words(second, by.second));
    }
};

// In this order: each builds on those before.
#include "kernels/elementwise.h"
#include "kernels/attention.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_quads.h"
#include "kernels/block_values.h"
#include "kernels/loops.h"

constexpr Kernels kKernels = {"avxvnni", quantize_rows, matmul, activate, attend, to_halves};

}  // namespace

const Kernels* avxvnni_kernels() { return &kKernels; }

}  // namespace edgemoe
