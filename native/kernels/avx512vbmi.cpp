// AVX-512 with VBMI, which shuffles bytes among whole vectors and takes bit fields of any place: points of
// grids are found without a load for each, and values of trellis codes with fewer shifts. All else is that of
// avx512.cpp.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx512.h"
#include "kernels/vbmi.h"
#include "kernels/vnni512.h"

constexpr bool has_kernels_of(Format f) { return has_grid(f) || is_trellis(f); }

#include "kernels/tiles.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_shuffles.h"
#include "kernels/block_values.h"
#include "kernels/trellis_shuffles.h"
#include "kernels/loops.h"

void matmul_of_any(const Matrix& w, const Activations& x, std::int64_t begin, std::int64_t end, float* out,
                   std::int64_t stride) {
    (has_kernels_of(w.format) ? matmul : avx512_kernels()->matmul)(w, x, begin, end, out, stride);
}

}  // namespace

const Kernels* avx512vbmi_kernels() {
    static const Kernels kernels = [] {
        Kernels all = *avx512_kernels();
        all.name = "avx512vbmi";
        all.matmul = matmul_of_any;
        return all;
    }();
    return &kernels;
}

}  // namespace edgemoe
