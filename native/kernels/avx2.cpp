// AVX2 with FMA and F16C: byte products are summed in 16 bits as long as those hold them: pairs of products
// with codes of the input, which are at most 128 in size.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx2.h"

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
// Values below 16: eight pairs, a block's, are at most 8 * 2 * 15 * 128 = 30720.
template <int bits>
struct Sums {
    I sum;
    I pairs = _mm256_setzero_si256();

    template <int g>
    void add(I w, const std::int8_t* x) {
        pairs = add16(pairs, multiply_pairs(w, x));
    }
    I total() const { return add_pairs(sum, pairs, 1); }
};
// Larger values: n pairs are at most n * 2 * value * 128, below 32768.
template <int n>
struct ShortSums {
    I sum;
    I pairs = _mm256_setzero_si256();

    template <int g>
    void add(I w, const std::int8_t* x) {
        const I products = multiply_pairs(w, x);
        pairs = g % n == 0 ? products : add16(pairs, products);
        if constexpr (g % n == n - 1) sum = add_pairs(sum, pairs, 1);
    }
    I total() const { return sum; }
};
template <>
struct Sums<5> : ShortSums<4> {};
template <>
struct Sums<6> : ShortSums<2> {};
template <>
struct Sums<7> : ShortSums<1> {};
// Eight bits are two codes below 16.
template <>
struct Sums<8> {
    I sum;
    I low = _mm256_setzero_si256(), high = _mm256_setzero_si256();

    template <int g>
    void add(I w, const std::int8_t* x) {
        low = add16(low, multiply_pairs(and8(w, 15), x));
        high = add16(high, multiply_pairs(and8(shift<-4>(w), 15), x));
    }
    I total() const { return add_pairs(add_pairs(sum, low, 1), high, 16); }
};

// In this order: each builds on those before.
#include "kernels/elementwise.h"
#include "kernels/attention.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_quads.h"
#include "kernels/loops.h"

constexpr Kernels kKernels = {"avx2", quantize_rows, matmul, activate, attend, to_halves};

}  // namespace

const Kernels* avx2_kernels() { return &kKernels; }

}  // namespace edgemoe
