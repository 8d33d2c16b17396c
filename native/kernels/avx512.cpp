// AVX-512 with VNNI: 16 rows a vector, one dot-product instruction per quad of columns.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx512.h"
#include "kernels/avx512_points.h"
#include "kernels/vnni512.h"

constexpr bool has_kernels_of(Format) { return true; }

// In this order: each builds on those before.
#include "kernels/elementwise.h"
#include "kernels/attention.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_quads.h"
#include "kernels/block_values.h"
#include "kernels/loops.h"

constexpr Kernels kKernels = {"avx512", quantize_rows, matmul, activate, attend, to_halves};

}  // namespace

const Kernels* avx512_kernels() { return &kKernels; }

}  // namespace edgemoe
