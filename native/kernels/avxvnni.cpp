// AVX-VNNI, which processors of laptops have without AVX-512: as AVX2, but one instruction for the dot
// product of a quad of columns. EDGEMOE_AVXVNNI_BY_AVX512 takes AVX-512's instruction of the same width and
// meaning, so that these kernels can be tested and timed on processors that have only that.
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
    return _mm256_dpbusd_epi32(sum, w, x);
#else
    return _mm256_dpbusd_avx_epi32(sum, w, x);
#endif
}
inline I add_lanes(I a, I b) { return _mm256_add_epi32(a, b); }

#include "kernels/vnni_sums.h"

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
