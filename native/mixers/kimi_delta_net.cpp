#include "mixers/kimi_delta_net.h"

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

using Floats = std::unique_ptr<float[]>;

Floats floats(std::int64_t count) {
    return std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count));
}

float softplus(float x) { return x > kLargeForSoftplus ? x : std::log1p(std::exp(x)); }

float logistic(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// One token of one head: each row of S decays by itself, what the key finds in it is brought towards the
// value, the query reads. found [Dv] is scratch.
EDGEMOE_FOR_EACH_ISA void delta_step(const float* query, const float* key, const float* value,
                                     const float* decays, float beta, std::int64_t key_dim,
                                     std::int64_t value_dim, float* state, float* found, float* out) {
    std::fill_n(found, value_dim, 0.0f);
    std::fill_n(out, value_dim, 0.0f);
    for (std::int64_t k = 0; k < key_dim; ++k) {
        float* const row = state + k * value_dim;
        const float of_key = key[k], decay = decays[k];
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

// The second of two matrices, of what the first has made.
void finish(const LowRank& matrices, const float* between, std::int64_t num_rows, float* out) {
    if (matrices.first.packed != nullptr) matmul(between, num_rows, matrices.second, out);
}

}  // namespace

// What the matrices make of the normed rows.
struct KimiDeltaNet::Projected {
    Floats channels;   // [T][C]
    Floats forgotten;  // [T][I]
    Floats gates;      // [T][J]
    Floats betas;      // [T][H]
};

KimiDeltaNet::Projected KimiDeltaNet::project(const float* x, std::int64_t num_rows) const {
    const std::int64_t width = q.cols, keys = num_heads * key_dim, values = num_heads * value_dim;
    const auto normed = floats(num_rows * width), parts = floats(num_rows * conv.num_channels);
    Projected found{floats(num_rows * conv.num_channels), floats(num_rows * keys), floats(num_rows * values),
                    floats(num_rows * num_heads)};
    rms_norm(x, num_rows, width, norm, eps, normed.get());
    const auto between_forget = floats(num_rows * forget.first.rows),
               between_gate = floats(num_rows * gate.first.rows);
    const bool halves_forget = forget.first.packed != nullptr, halves_gate = gate.first.packed != nullptr;
    float* const part_k = parts.get() + num_rows * keys;
    float* const part_v = part_k + num_rows * keys;
    const Product products[] = {
        {&q, parts.get()},
        {&k, part_k},
        {&v, part_v},
        {&beta, found.betas.get()},
        {halves_forget ? &forget.first : &forget.second,
         halves_forget ? between_forget.get() : found.forgotten.get()},
        {halves_gate ? &gate.first : &gate.second, halves_gate ? between_gate.get() : found.gates.get()}};
    matmul_each(normed.get(), num_rows, products);
    finish(forget, between_forget.get(), num_rows, found.forgotten.get());
    finish(gate, between_gate.get(), num_rows, found.gates.get());
    for (std::int64_t t = 0; t < num_rows; ++t) {
        float* row = found.channels.get() + t * conv.num_channels;
        row = std::copy_n(parts.get() + t * keys, keys, row);
        row = std::copy_n(part_k + t * keys, keys, row);
        std::copy_n(part_v + t * values, values, row);
    }
    return found;
}

float KimiDeltaNet::kept(std::int64_t head, std::int64_t channel, float forgotten) const {
    const float step = forgotten + dt_bias[channel];
    if (lowest_log < 0) return std::exp(lowest_log * logistic(-decay[head] * step));
    return std::exp(decay[head] * softplus(step));
}

void KimiDeltaNet::run_head(std::int64_t head, const float* mixed, const float* forgotten, const float* betas,
                            std::int64_t num_rows, float* state, float* outputs) const {
    const std::int64_t keys = num_heads * key_dim, first = head * key_dim;
    std::vector<float> found(static_cast<std::size_t>(value_dim)), decays(static_cast<std::size_t>(key_dim));
    for (std::int64_t t = 0; t < num_rows; ++t) {
        const float* const row = mixed + t * conv.num_channels;
        for (std::int64_t i = 0; i < key_dim; ++i) {
            decays[static_cast<std::size_t>(i)] = kept(head, first + i, forgotten[t * keys + first + i]);
        }
        delta_step(row + first, row + keys + first, row + 2 * keys + head * value_dim, decays.data(),
                   logistic(betas[t * num_heads + head]), key_dim, value_dim, state, found.data(),
                   outputs + (t * num_heads + head) * value_dim);
    }
}

void KimiDeltaNet::run_text(const Projected& projected, const Segment& segment, bool commits,
                            float* outputs) const {
    const std::int64_t channels = conv.num_channels, rows = segment.num_rows, at = segment.first_row;
    const std::int64_t keys = num_heads * key_dim;
    std::vector<float> spare_tail;
    float* tail = segment.tail;
    if (!commits) {
        spare_tail.assign(tail, tail + conv.tail_size());
        tail = spare_tail.data();
    }
    const auto mixed = floats(rows * channels);
    conv.run(projected.channels.get() + at * channels, rows, tail, mixed.get());
    const Kernels& kernels = active_kernels();
    const float query_length = 1.0f / std::sqrt(static_cast<float>(key_dim));
    parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            float* const row = mixed.get() + t * channels;
            kernels.activate(Activation::kSilu, row, nullptr, channels);
            for (std::int64_t h = 0; h < num_heads; ++h) {
                to_length(row + h * key_dim, key_dim, query_length);
                to_length(row + keys + h * key_dim, key_dim, 1.0f);
            }
        }
    });
    parallel_for(num_heads, 1, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t state_size = key_dim * value_dim;
        std::vector<float> spare;
        for (std::int64_t h = begin; h < end; ++h) {
            float* state = segment.state + h * state_size;
            if (!commits) {
                spare.assign(state, state + state_size);
                state = spare.data();
            }
            run_head(h, mixed.get(), projected.forgotten.get() + at * keys,
                     projected.betas.get() + at * num_heads, rows, state,
                     outputs + at * num_heads * value_dim);
        }
    });
}

void KimiDeltaNet::run(float* x, std::int64_t num_rows, std::span<const Segment> segments,
                       bool commits) const {
    const std::int64_t width = q.cols, inner = num_heads * value_dim;
    const Projected projected = project(x, num_rows);
    const auto outputs = floats(num_rows * inner), added = floats(num_rows * width);
    for (const Segment& segment : segments) run_text(projected, segment, commits, outputs.get());
    rms_norm(outputs.get(), num_rows * num_heads, value_dim, output_norm, eps, outputs.get());
    parallel_for(num_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin * inner; i < end * inner; ++i) {
            outputs[static_cast<std::size_t>(i)] *= logistic(projected.gates[static_cast<std::size_t>(i)]);
        }
    });
    matmul(outputs.get(), num_rows, out, added.get());
    for (std::int64_t i = 0; i < num_rows * width; ++i)
        x[i] += branch_scale * added[static_cast<std::size_t>(i)];
}

}  // namespace edgemoe
