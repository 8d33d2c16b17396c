// AVX2 with FMA and F16C: byte products are summed in 16 bits as long as those hold them: pairs of products
// with codes of the input, which are at most 128 in size.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx2.h"

constexpr int kVectorsTogether = 1;
constexpr bool has_kernels_of(Format) { return true; }

inline I multiply_pairs(I w, const std::int8_t* x) {
    std::int32_t quad;
    __builtin_memcpy(&quad, x, sizeof quad);
    return _mm256_maddubs_epi16(w, _mm256_set1_epi32(quad));
}
inline I add_pairs(I acc, I pairs, std::int16_t factor) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(factor)));
}
inline I add16(I acc, I pairs) {
    acc = _mm256_add_epi16(acc, pairs);
    // Else the compiler sums in another order, for which it computes all products first, and there are not
    // registers for so many.
    asm("" : "+x"(acc));
    return acc;
}
#include "kernels/pair_sums.h"

// Sums stay in 16 bits: eight products in each, at most 8 * 7 * 128 = 7168. A scale stands in both halves of
// a lane.
struct HalvedSums {
    struct Scales {
        I first, second;
    };
    static Scales scales(I first, I second) {
        return {or8(shift32<16>(first), first), or8(shift32<16>(second), second)};
    }

    I first = set1_i(0), second = set1_i(0);

    template <int g>
    void add(I w, const std::int8_t* x) {
        I& pairs = g < kQuads / 2 ? first : second;
        pairs = add16(pairs, multiply_pairs(w, x));
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

constexpr Kernels kKernels = {"avx2", quantize_rows, matmul, activate, attend, to_halves};

}  // namespace

const Kernels* avx2_kernels() { return &kKernels; }

}  // namespace edgemoe
