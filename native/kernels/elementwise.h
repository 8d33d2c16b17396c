// Quantising activations, activation functions, conversion to halves: loops that the compiler vectorises for
// the instruction set of the file that includes them textually, inside its anonymous namespace.

#include "kernels/tiles.h"

// Adding and subtracting it rounds a float of magnitude below 2^22 to the nearest integer.
constexpr float kRoundingMagic = 12582912.0f;

// The largest magnitude of a block. Magnitudes compare like their bits, and an integer maximum vectorises
// without fast-math.
inline float largest_magnitude(const float* values) {
    std::int32_t largest = 0;
    for (std::int64_t i = 0; i < kBlock; ++i) {
        std::int32_t bits;
        __builtin_memcpy(&bits, values + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return float_of_bits(static_cast<std::uint32_t>(largest));
}

// Token `slot` of a tile of T.
template <int T>
void quantize_token(const float* x, std::int64_t cols, std::int64_t slot, TokenBlock<T>* blocks) {
    for (std::int64_t i = 0; i < cols / kBlock; ++i) {
        const float* values = x + i * kBlock;
        TokenBlock<T>& block = blocks[i];
        const float largest = largest_magnitude(values);
        const float scale = largest / 127.0f;
        // A block of subnormals counts as zero: its inverse would be infinite.
        const float inverse = largest > 1e-35f ? 127.0f / largest : 0.0f;
        // In an array of its own: stores of bytes could change anything, which would end vector code.
        std::int32_t codes[kBlock];
        for (std::int64_t j = 0; j < kBlock; ++j) {
            const float shifted = values[j] * inverse + kRoundingMagic;
            __builtin_memcpy(codes + j, &shifted, sizeof shifted);
            codes[j] -= 0x4b400000;  // the bits of kRoundingMagic
        }
        std::int32_t half_sums[2] = {0, 0};
        for (int half : {0, 1}) {
// Left as a loop it becomes vector code.
#pragma GCC unroll 1
            for (std::int64_t j = 0; j < 16; ++j) half_sums[half] += codes[half * 16 + j];
        }
        for (std::int64_t j = 0; j < kBlock; ++j) block.codes[slot][j] = static_cast<std::int8_t>(codes[j]);
        for (int half : {0, 1}) {
            block.half_sums[half][slot] = scale * static_cast<float>(half_sums[half]);
            block.half_starts_32[half][slot] = -32 * half_sums[half];
        }
        const std::int32_t sum = half_sums[0] + half_sums[1];
        block.scales[slot] = scale;
        block.sums[slot] = scale * static_cast<float>(sum);
        block.starts_128[slot] = -kDot8Zero * sum;
        block.starts_16[slot] = -16 * sum;
    }
}

void quantize_rows(const Activations& x, std::int64_t begin, std::int64_t end, std::uint8_t* blocks) {
    const std::int64_t token_bytes = x.cols / kBlock * kTokenBlockBytes;
    const std::int64_t num_tiled = num_tiled_tokens(x);
    for (std::int64_t t = begin; t < end; ++t) {
        const float* values = x.values + t * x.cols;
        const std::int64_t slot = t < num_tiled ? t % kMaxTokens : 0;
        std::uint8_t* tile = blocks + (t - slot) * token_bytes;
        if (t < num_tiled) {
            quantize_token(values, x.cols, slot, reinterpret_cast<TokenBlock<kMaxTokens>*>(tile));
        } else {
            quantize_token(values, x.cols, 0, reinterpret_cast<TokenBlock<1>*>(tile));
        }
    }
}

// Relative error below 2e-7 on [-87, 88], clamped outside.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float n = x * 1.44269504f + kRoundingMagic - kRoundingMagic;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts, n * first is exact
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const std::int32_t bits = (static_cast<std::int32_t>(n) + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return p * power;
}

// The hyperbolic tangent.
inline float tangent(float x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

void activate(Activation activation, float* gate, const float* up, std::int64_t n) {
    switch (activation.kind) {
        case Activation::kSilu:
            for (std::int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + exponential(-gate[i]));
            break;
        case Activation::kGelu:
            for (std::int64_t i = 0; i < n; ++i) {
                gate[i] = 0.5f * gate[i] * (1.0f + __builtin_erff(gate[i] * 0.70710678f));
            }
            break;
        case Activation::kGeluTanh:
            for (std::int64_t i = 0; i < n; ++i) {
                const float x = gate[i];
                gate[i] = 0.5f * x * (1.0f + tangent(0.79788456f * (x + 0.044715f * x * x * x)));
            }
            break;
        case Activation::kRelu:
            for (std::int64_t i = 0; i < n; ++i) gate[i] = gate[i] > 0.0f ? gate[i] : 0.0f;
            break;
        case Activation::kRelu2:
            for (std::int64_t i = 0; i < n; ++i) {
                const float x = gate[i] > 0.0f ? gate[i] : 0.0f;
                gate[i] = x * x;
            }
            break;
        case Activation::kClampedSwiglu: {
            const float gate_limit = activation.gate_limit, limit = activation.limit;
            const float alpha = activation.alpha, raise = activation.raise;
            for (std::int64_t i = 0; i < n; ++i) {
                const float x = gate[i] > gate_limit ? gate_limit : gate[i];
                float raised = up[i] > limit ? limit : up[i];
                raised = raised < -limit ? -limit : raised;
                gate[i] = x / (1.0f + exponential(-alpha * x)) * (raised + raise);
            }
            return;
        }
        case Activation::kCappedSwiglu: {
            const float gate_cap = activation.gate_limit, up_cap = activation.limit;
            for (std::int64_t i = 0; i < n; ++i) {
                const float x = gate[i];
                const float bent = gate_cap * tangent(x / gate_cap) / (1.0f + exponential(-x));
                gate[i] = bent * up_cap * tangent(up[i] / up_cap);
            }
            return;
        }
    }
    if (up == nullptr) return;
    for (std::int64_t i = 0; i < n; ++i) gate[i] *= up[i];
}

void to_halves(const float* from, std::int64_t n, std::uint16_t* to) {
    std::int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store_f16(to + i, load_f32(from + i));
    for (; i < n; ++i) to[i] = f16_of_float(from[i]);
}
