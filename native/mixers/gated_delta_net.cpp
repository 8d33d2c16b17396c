#include "mixers/gated_delta_net.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/kernels.h"
#include "mixers/delta_rule.h"
#include "ops/ops.h"

namespace edgemoe {
namespace {

// Beyond it ln(1 + e^x) is x in single precision.
constexpr float kLargeForSoftplus = 20.0f;

std::unique_ptr<float[]> floats(std::int64_t count) {
    return std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count));
}

float softplus(float x) { return x > kLargeForSoftplus ? x : std::log1p(std::exp(x)); }

float logistic(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// One token of one head: S decays, what the key finds in it is brought towards the value, the query reads.
// found [Dv] is scratch.
EDGEMOE_FOR_EACH_ISA void delta_step(const float* query, const float* key, const float* value, float decay,
                                     float beta, std::int64_t key_dim, std::int64_t value_dim, float* state,
                                     float* found, float* out) {
    std::fill_n(found, value_dim, 0.0f);
    std::fill_n(out, value_dim, 0.0f);
    for (std::int64_t k = 0; k < key_dim; ++k) {
        float* const row = state + k * value_dim;
        const float of_key = key[k];
        for (std::int64_t v = 0; v < value_dim; ++v) {
            row[v] *= decay;
            found[v] += row[v] * of_key;
        }
    }
    for (std::int64_t v = 0; v < value_dim; ++v) found[v] = beta * (value[v] - found[v]);
    for (std::int64_t k = 0; k < key_dim; ++k) {
        float* const row = state + k * value_dim;
        const float of_key = key[k], of_query = query[k];
        for (std::int64_t v = 0; v < value_dim; ++v) {
            row[v] += of_key * found[v];
            out[v] += row[v] * of_query;
        }
    }
}

}  // namespace

// What the matrices make of the normed rows.
struct GatedDeltaNet::Projected {
    const float* qkv;
    const float* beta;
    const float* alpha;
};

void GatedDeltaNet::run_text(const Projected& projected, const Segment& segment, bool commits,
                             float* outputs) const {
    const std::int64_t channels = conv.num_channels, rows = segment.num_rows;
    const std::int64_t key_width = num_key_heads * key_dim, heads = num_value_heads;
    std::vector<float> spare_tail;
    float* tail = segment.tail;
    if (!commits) {
        spare_tail.assign(tail, tail + conv.tail_size());
        tail = spare_tail.data();
    }
    const auto mixed = floats(rows * channels);
    conv.run(projected.qkv + segment.first_row * channels, rows, tail, mixed.get());
    const Kernels& kernels = active_kernels();
    const float query_length = 1.0f / std::sqrt(static_cast<float>(key_dim));
    parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            float* const row = mixed.get() + t * channels;
            kernels.activate(Activation::kSilu, row, nullptr, channels);
            for (std::int64_t h = 0; h < num_key_heads; ++h) {
                to_length(row + h * key_dim, key_dim, query_length);
                to_length(row + key_width + h * key_dim, key_dim, 1.0f);
            }
        }
    });
    parallel_for(heads, 1, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t state_size = key_dim * value_dim;
        std::vector<float> found(static_cast<std::size_t>(value_dim)), spare;
        for (std::int64_t h = begin; h < end; ++h) {
            float* state = segment.state + h * state_size;
            if (!commits) {
                spare.assign(state, state + state_size);
                state = spare.data();
            }
            const std::int64_t key_head = h / (heads / num_key_heads);
            for (std::int64_t t = 0; t < rows; ++t) {
                const std::int64_t at = (segment.first_row + t) * heads + h;
                const float* const row = mixed.get() + t * channels;
                const float kept = std::exp(decay[h] * softplus(projected.alpha[at] + dt_bias[h]));
                delta_step(row + key_head * key_dim, row + key_width + key_head * key_dim,
                           row + 2 * key_width + h * value_dim, kept, logistic(projected.beta[at]), key_dim,
                           value_dim, state, found.data(), outputs + at * value_dim);
            }
        }
    });
}

void GatedDeltaNet::run(float* x, std::int64_t num_rows, std::span<const Segment> segments,
                        bool commits) const {
    const std::int64_t width = qkv.cols, inner = num_value_heads * value_dim;
    const auto normed = floats(num_rows * width), projected = floats(num_rows * conv.num_channels),
               gates = floats(num_rows * inner), outputs = floats(num_rows * inner),
               rates = floats(2 * num_rows * num_value_heads);
    float* const betas = rates.get();
    float* const alphas = betas + num_rows * num_value_heads;
    rms_norm(x, num_rows, width, norm, eps, normed.get());
    const Product products[] = {{&qkv, projected.get()}, {&z, gates.get()}, {&beta, betas}, {&alpha, alphas}};
    matmul_each(normed.get(), num_rows, products);
    for (const Segment& segment : segments) {
        run_text({projected.get(), betas, alphas}, segment, commits, outputs.get());
    }
    rms_norm(outputs.get(), num_rows * num_value_heads, value_dim, output_norm, eps, outputs.get());
    const Kernels& kernels = active_kernels();
    parallel_for(num_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels.activate(Activation::kSilu, gates.get() + begin * inner, outputs.get() + begin * inner,
                         (end - begin) * inner);
    });
    matmul(gates.get(), num_rows, out, normed.get());
    for (std::int64_t i = 0; i < num_rows * width; ++i)
        x[i] += branch_scale * normed[static_cast<std::size_t>(i)];
}

}  // namespace edgemoe
