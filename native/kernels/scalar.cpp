// The readable reference: one row and one token at a time, straight from the definitions in layout.h.
// It runs everywhere and is the oracle of the vector kernels.
#include "kernels/decode.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

using F = float;
constexpr int kLanes = 1;
constexpr int kMaxTokens = 1;
constexpr int kQueriesAtOnce = 1;
constexpr int kSumsAtOnce = 8;
constexpr int kDot8Zero = 128;
inline F load_f32(const float* p) { return *p; }
inline F load_f16(const std::uint16_t* p) { return float_of_f16(*p); }
inline F set1(float v) { return v; }
inline F mul(F a, F b) { return a * b; }
inline F fma(F a, F b, F c) { return a * b + c; }
inline void store(float* p, F v) { *p = v; }
inline void store_f16(std::uint16_t* p, F v) { *p = f16_of_float(v); }
inline float sum_of(F v) { return v; }
template <int m>
inline void store_sums(const F* sums, float* scores, std::int64_t reach) {
    for (int i = 0; i < 4 * m; ++i) scores[i % m * reach + i / m] = sums[i];
}

// In this order: each builds on those before.
#include "kernels/elementwise.h"
#include "kernels/attention.h"

float low_bit_dot(const Matrix& w, const std::uint8_t* group, std::int64_t row, const Activations& x,
                  std::int64_t token) {
    const Format f = w.format;
    const std::uint8_t* codes = group + group_header_bytes(f, w.cols);
    const auto* blocks = reinterpret_cast<const TokenBlock<1>*>(x.blocks) + token * w.cols / kBlock;
    float acc = 0;
    for (std::int64_t half = 0; half < w.cols / 16; ++half) {
        const std::int64_t block = half / 2;
        const std::uint8_t* block_codes = codes + block * block_code_bytes(f);
        const std::uint8_t* own = group + block_scale_offset(f, block);
        std::int32_t sum = 0;
        for (std::int64_t col = half % 2 * 16; col < half % 2 * 16 + 16; ++col) {
            sum += value_in_block(f, block_codes, own, row, col) * blocks[block].codes[0][col];
        }
        const auto [scale, zero, minimum] = scale_in_group(f, group, block, row, half % 2);
        const float dots = static_cast<float>(sum) * blocks[block].scales[0];
        const float seen = blocks[block].half_sums[half % 2][0];
        acc += scale * (dots - zero * seen) - minimum * seen;
    }
    return acc * decode_base(f, group, row);
}

float float_dot(const Matrix& w, const std::uint8_t* group, std::int64_t row, const Activations& x,
                std::int64_t token) {
    float acc = 0;
    for (std::int64_t col = 0; col < w.cols; ++col) {
        acc += decode_value(w.format, group, row, col) * x.values[token * w.cols + col];
    }
    return acc;
}

void matmul(const Matrix& w, const Activations& x, std::int64_t begin, std::int64_t end, float* out,
            std::int64_t stride) {
    const auto dot = is_low_bit(w.format) ? low_bit_dot : float_dot;
    for (std::int64_t row = begin * kRowGroup; row < end * kRowGroup && row < w.rows; ++row) {
        const std::uint8_t* group = w.packed + row / kRowGroup * group_bytes(w.format, w.cols);
        for (std::int64_t t = 0; t < x.num_tokens; ++t) {
            out[t * stride + row] = dot(w, group, row % kRowGroup, x, t);
        }
    }
}

constexpr Kernels kKernels = {"scalar", quantize_rows, matmul, activate, attend, to_halves};

}  // namespace

const Kernels* scalar_kernels() { return &kKernels; }

}  // namespace edgemoe
