// Quantising activations, activation functions, conversion to halves: loops that the compiler vectorises for
// the instruction set of the file that includes them textually, inside its anonymous namespace.

#include "kernels/tiles.h"
#include "kernels/token_blocks.h"

void quantize_rows(const Activations& x, std::int64_t begin, std::int64_t end, std::uint8_t* blocks) {
    const std::int64_t token_bytes = x.cols / kBlock * kTokenBlockBytes;
    const std::int64_t num_tiled = num_tiled_tokens(x);
    const int rest = width_of_rest(x);
    for (std::int64_t t = begin; t < end; ++t) {
        const float* values = x.values + t * x.cols;
        const int width = t < num_tiled ? kMaxTokens : rest;
        const std::int64_t slot = t < num_tiled ? t % width : (t - num_tiled) % width;
        std::uint8_t* tile = blocks + (t - slot) * token_bytes;
        switch (width) {
            case 1:
                quantize_token(values, x.cols, slot, reinterpret_cast<TokenBlock<1>*>(tile));
                break;
            case 2:
                quantize_token(values, x.cols, slot, reinterpret_cast<TokenBlock<2>*>(tile));
                break;
            case 4:
                quantize_token(values, x.cols, slot, reinterpret_cast<TokenBlock<4>*>(tile));
                break;
            default:
                quantize_token(values, x.cols, slot, reinterpret_cast<TokenBlock<kMaxTokens>*>(tile));
        }
    }
}

// Relative error below 2e-7 on [-87, 88], clamped outside. A loop that calls it is vector code only where it
// is inlined, which in an object as large as this no compiler does by itself.
[[gnu::always_inline]] inline float exponential(float x) {
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
[[gnu::always_inline]] inline float tangent(float x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

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
