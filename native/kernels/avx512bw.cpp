// AVX-512 without VNNI, as processors for servers and workstations of 2017 to 2019 have it: 16 rows a vector,
// byte products summed as AVX2 does.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx512.h"
#include "kernels/avx512_points.h"

constexpr bool has_kernels_of(Format) { return true; }

inline I multiply_pairs(I w, const std::int8_t* x) {
    std::int32_t quad;
    __builtin_memcpy(&quad, x, sizeof quad);
    return _mm512_maddubs_epi16(w, _mm512_set1_epi32(quad));
}
inline I add_pairs(I acc, I pairs, std::int16_t factor) {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(factor)));
}
inline I add16(I acc, I pairs) { return _mm512_add_epi16(acc, pairs); }

#include "kernels/pair_sums.h"

// In this order: each builds on those before.
#include "kernels/elementwise.h"
#include "kernels/attention.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_quads.h"
#include "kernels/block_values.h"
#include "kernels/loops.h"

constexpr Kernels kKernels = {"avx512bw", quantize_rows, matmul, activate, attend, to_halves};

}  // namespace

const Kernels* avx512bw_kernels() { return &kKernels; }

}  // namespace edgemoe
