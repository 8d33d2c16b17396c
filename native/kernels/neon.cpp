// NEON with the dot product of ARMv8.2: 4 rows a vector. That product multiplies signed bytes: codes below 64
// are signed as they are, 8-bit codes become the weights themselves.
#include <arm_neon.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/neon.h"

constexpr bool has_kernels_of(Format) { return true; }

template <int bits, bool>
struct Sums {
    I sum;

    template <int g>
    void add(I w, const std::int8_t* x) {
        std::int32_t quad;
        __builtin_memcpy(&quad, x, sizeof quad);
        if constexpr (bits == 8) w = of_bytes(veorq_u8(bytes_of(w), vdupq_n_u8(128)));
        sum = vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(vdupq_n_s32(quad)));
    }
    I total() const { return sum; }
};

// In this order: each builds on those before.
#include "kernels/elementwise.h"
#include "kernels/attention.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_quads.h"
#include "kernels/block_values.h"
#include "kernels/loops.h"

constexpr Kernels kKernels = {"neon", quantize_rows, matmul, activate, attend, to_halves};

}  // namespace

const Kernels* neon_kernels() { return &kKernels; }

}  // namespace edgemoe
