#include "mixers/kimi_delta_net.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/kernels.h"
#include "mixers/delta_rule.h"
#include "mixers/state_columns.h"
#include "ops/ops.h"

namespace edgemoe {
namespace {

// The second of two matrices, of what the first has made.
void finish(const LowRank& matrices, const float* between, std::int64_t num_rows, float* out) {
    if (matrices.first.packed != nullptr) matmul(between, num_rows, matrices.second, out);
}

}  // namespace

// What the matrices make of the normed rows.
struct KimiDeltaNet::Projected {
    FloatBuffer channels;   // [T][C]
    FloatBuffer forgotten;  // [T][I]
    FloatBuffer gates;      // [T][J]
    FloatBuffer betas;      // [T][H]
};

// Of one text, what its state depends on.
struct KimiDeltaNet::Rows {
    const float* channels;
    const float* forgotten;
    const float* betas;
};

KimiDeltaNet::Projected KimiDeltaNet::project(const float* x, std::int64_t num_rows) const {
    const std::int64_t width = q.cols, keys = num_heads * key_dim, values = num_heads * value_dim;
    const auto normed = uninitialized(num_rows * width), parts = uninitialized(num_rows * conv.num_channels);
    Projected found{uninitialized(num_rows * conv.num_channels), uninitialized(num_rows * keys),
                    uninitialized(num_rows * values), uninitialized(num_rows * num_heads)};
    rms_norm(x, num_rows, norm_width, norm, eps, normed.get(), width);
    const auto between_forget = uninitialized(num_rows * forget.first.rows),
               between_gate = uninitialized(num_rows * gate.first.rows);
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
    const std::int64_t most = std::min(num_rows, kTokensAtOnce);
    std::vector<float> decays(static_cast<std::size_t>(most * key_dim));
    std::vector<DeltaToken> tokens(static_cast<std::size_t>(most));
    for (std::int64_t begin = 0; begin < num_rows; begin += most) {
        const std::int64_t count = std::min(most, num_rows - begin);
        for (std::int64_t i = 0; i < count; ++i) {
            const std::int64_t t = begin + i;
            const float* const row = mixed + t * conv.num_channels;
            float* const own = decays.data() + i * key_dim;
            for (std::int64_t k = 0; k < key_dim; ++k) {
                own[k] = kept(head, first + k, forgotten[t * keys + first + k]);
            }
            tokens[static_cast<std::size_t>(i)] = {row + first,
                                                   row + keys + first,
                                                   row + 2 * keys + head * value_dim,
                                                   own,
                                                   logistic(betas[t * num_heads + head]),
                                                   outputs + (t * num_heads + head) * value_dim};
        }
        delta_steps(std::span(tokens).first(static_cast<std::size_t>(count)), key_dim, value_dim, state);
    }
}

void KimiDeltaNet::run_text(const Rows& of_text, const RecurrentSegment& segment, bool commits,
                            float* outputs) const {
    const std::int64_t channels = conv.num_channels, rows = segment.num_rows;
    const FloatBuffer mixed = uninitialized(rows * channels);
    convolve(conv, of_text.channels, segment, commits, mixed.get());
    activate_channels({channels, num_heads, key_dim, activation}, rows, mixed.get());
    for_each_head(segment, state_shape(), commits, [&](std::int64_t head, float* state) {
        run_head(head, mixed.get(), of_text.forgotten, of_text.betas, rows, state, outputs);
    });
}

void KimiDeltaNet::run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments,
                       bool commits) const {
    const std::int64_t width = q.cols, inner = num_heads * value_dim;
    const Projected projected = project(x, num_rows);
    const auto outputs = uninitialized(num_rows * inner), added = uninitialized(num_rows * width);
    for (const RecurrentSegment& segment : segments) {
        const std::int64_t at = segment.first_row, rows = segment.num_rows, keys = num_heads * key_dim;
        const Rows of_text = {projected.channels.get() + at * conv.num_channels,
                              projected.forgotten.get() + at * keys, projected.betas.get() + at * num_heads};
        if (segment.record != nullptr) {
            float* to = std::copy_n(of_text.channels, rows * conv.num_channels, segment.record);
            to = std::copy_n(of_text.forgotten, rows * keys, to);
            std::copy_n(of_text.betas, rows * num_heads, to);
        }
        run_text(of_text, segment, commits, outputs.get() + at * inner);
    }
    rms_norm(outputs.get(), num_rows * num_heads, value_dim, output_norm, eps, outputs.get());
    parallel_for(num_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin * inner; i < end * inner; ++i) {
            outputs[static_cast<std::size_t>(i)] *= logistic(projected.gates[static_cast<std::size_t>(i)]);
        }
    });
    matmul_filled(outputs.get(), num_rows, inner, out, added.get());
    add_scaled(added.get(), num_rows * width, branch_scale, x);
}

std::int64_t KimiDeltaNet::working_bytes(std::int64_t num_rows, std::int64_t width, std::int64_t num_heads,
                                         std::int64_t key_dim, std::int64_t value_dim,
                                         std::int64_t forget_rank, std::int64_t gate_rank) {
    const std::int64_t keys = num_heads * key_dim, values = num_heads * value_dim;
    const std::int64_t channels = 2 * keys + values, found = channels + keys + values + num_heads;
    const std::int64_t projecting = float_bytes(num_rows * (width + channels + forget_rank + gate_rank)) +
                                    rounded_bytes(num_rows, std::max({width, forget_rank, gate_rank}));
    const std::int64_t running = float_bytes(num_rows * (values + width)) +
                                 std::max(float_bytes(num_rows * channels), filled_bytes(num_rows, values));
    return float_bytes(num_rows * found) + std::max(projecting, running);
}

std::int64_t KimiDeltaNet::record_width() const {
    return conv.num_channels + num_heads * key_dim + num_heads;
}

void KimiDeltaNet::replay(const float* record, std::int64_t num_recorded,
                          const RecurrentSegment& text) const {
    const float* const forgotten = record + num_recorded * conv.num_channels;
    const FloatBuffer outputs = uninitialized(text.num_rows * num_heads * value_dim);
    run_text({record, forgotten, forgotten + num_recorded * num_heads * key_dim}, text, true, outputs.get());
}

}  // namespace edgemoe
