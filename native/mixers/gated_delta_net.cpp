#include "mixers/gated_delta_net.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/kernels.h"
#include "mixers/delta_rule.h"
#include "mixers/state_columns.h"
#include "ops/ops.h"

namespace edgemoe {
// What the matrices make of the normed rows.
struct GatedDeltaNet::Projected {
    const float* qkv;
    const float* beta;
    const float* alpha;
};

void GatedDeltaNet::run_text(const Projected& projected, const RecurrentSegment& segment, bool commits,
                             float* outputs) const {
    const std::int64_t channels = conv.num_channels, rows = segment.num_rows;
    const std::int64_t key_width = num_key_heads * key_dim, heads = num_value_heads;
    const FloatBuffer mixed = uninitialized(rows * channels);
    convolve(conv, projected.qkv + segment.first_row * channels, segment, commits, mixed.get());
    activate_channels({channels, num_key_heads, key_dim, activation}, rows, mixed.get());
    for_each_head(segment, state_shape(), commits, [&](std::int64_t h, float* state) {
        const std::int64_t key_head = h / (heads / num_key_heads), most = std::min(rows, kTokensAtOnce);
        std::vector<float> decays(static_cast<std::size_t>(most * key_dim));
        std::vector<DeltaToken> tokens(static_cast<std::size_t>(most));
        for (std::int64_t begin = 0; begin < rows; begin += most) {
            const std::int64_t count = std::min(most, rows - begin);
            for (std::int64_t t = 0; t < count; ++t) {
                const std::int64_t at = (segment.first_row + begin + t) * heads + h;
                const float* const row = mixed.get() + (begin + t) * channels;
                float* const own = decays.data() + t * key_dim;
                std::fill_n(own, key_dim, std::exp(decay[h] * softplus(projected.alpha[at] + dt_bias[h])));
                tokens[static_cast<std::size_t>(t)] = {row + key_head * key_dim,
                                                       row + key_width + key_head * key_dim,
                                                       row + 2 * key_width + h * value_dim,
                                                       own,
                                                       logistic(projected.beta[at]),
                                                       outputs + at * value_dim};
            }
            delta_steps(std::span(tokens).first(static_cast<std::size_t>(count)), key_dim, value_dim, state);
        }
    });
}

void GatedDeltaNet::run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments,
                        bool commits) const {
    const std::int64_t width = qkv.cols, inner = num_value_heads * value_dim;
    const auto normed = uninitialized(num_rows * width),
               projected = uninitialized(num_rows * conv.num_channels),
               gates = uninitialized(num_rows * inner), outputs = uninitialized(num_rows * inner),
               rates = uninitialized(2 * num_rows * num_value_heads);
    float* const betas = rates.get();
    float* const alphas = betas + num_rows * num_value_heads;
    rms_norm(x, num_rows, norm_width, norm, eps, normed.get(), width);
    const Product products[] = {{&qkv, projected.get()}, {&z, gates.get()}, {&beta, betas}, {&alpha, alphas}};
    matmul_each(normed.get(), num_rows, products);
    for (const RecurrentSegment& segment : segments) {
        if (segment.record != nullptr) {
            const std::int64_t at = segment.first_row, rows = segment.num_rows, heads = num_value_heads;
            float* to = std::copy_n(projected.get() + at * conv.num_channels, rows * conv.num_channels,
                                    segment.record);
            to = std::copy_n(betas + at * heads, rows * heads, to);
            std::copy_n(alphas + at * heads, rows * heads, to);
        }
        run_text({projected.get(), betas, alphas}, segment, commits, outputs.get());
    }
    rms_norm(outputs.get(), num_rows * num_value_heads, value_dim, output_norm, eps, outputs.get());
    const Kernels& kernels = active_kernels();
    parallel_for(num_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels.activate(Activation::kSilu, gates.get() + begin * inner, outputs.get() + begin * inner,
                         (end - begin) * inner);
    });
    matmul_filled(gates.get(), num_rows, inner, out, normed.get());
    add_scaled(normed.get(), num_rows * width, branch_scale, x);
}

std::int64_t GatedDeltaNet::working_bytes(std::int64_t num_rows, std::int64_t width,
                                          std::int64_t num_key_heads, std::int64_t num_value_heads,
                                          std::int64_t key_dim, std::int64_t value_dim) {
    const std::int64_t inner = num_value_heads * value_dim, channels = 2 * num_key_heads * key_dim + inner;
    const std::int64_t kept = float_bytes(num_rows * (width + channels + 2 * inner + 2 * num_value_heads));
    return kept + std::max({rounded_bytes(num_rows, width), float_bytes(num_rows * channels),
                            filled_bytes(num_rows, inner)});
}

std::int64_t GatedDeltaNet::record_width() const { return conv.num_channels + 2 * num_value_heads; }

void GatedDeltaNet::replay(const float* record, std::int64_t num_recorded,
                           const RecurrentSegment& text) const {
    const float* const betas = record + num_recorded * conv.num_channels;
    const FloatBuffer outputs = uninitialized(text.num_rows * num_value_heads * value_dim);
    run_text({record, betas, betas + num_recorded * num_value_heads}, text, true, outputs.get());
}

}  // namespace edgemoe
