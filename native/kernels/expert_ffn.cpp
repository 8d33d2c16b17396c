#include "kernels/expert_ffn.h"

#include <algorithm>
#include <memory>

#include "core/thread_pool.h"
#include "kernels/matmul.h"
#include "kernels/product_rows.h"

namespace edgemoe {
namespace {

constexpr std::int64_t kFloatBytes = sizeof(float);

// Adds bias to the columns [first, last) of every row of out, `stride` values each.
void add_bias(const float* bias, std::int64_t first, std::int64_t last, std::int64_t num_rows,
              std::int64_t stride, float* out) {
    for (std::int64_t t = 0; t < num_rows; ++t) {
        for (std::int64_t i = first; i < last; ++i) out[t * stride + i] += bias[i];
    }
}

// What gate and up make of rows [R][D], for the groups [begin, end) of the inner columns: `gated` [R][F] gets
// what down takes. `raised` [R][F] is room for what up makes; nullptr where there is no gate.
void fill_inner(const ExpertMatrices& matrices, const Activations& rows, std::int64_t begin, std::int64_t end,
                Activation activation, float* gated, float* raised) {
    const Kernels& kernels = active_kernels();
    const auto& [gate, up, down, biases] = matrices;
    const std::int64_t width = up.rows, num_rows = rows.num_tokens;
    kernels.matmul(gate ? *gate : up, rows, begin, end, gated, width);
    if (gate) kernels.matmul(up, rows, begin, end, raised, width);
    const std::int64_t first = begin * kRowGroup, last = std::min(end * kRowGroup, width);
    if (biases != nullptr) {
        add_bias(biases, first, last, num_rows, width, gated);
        if (gate) add_bias(biases + width, first, last, num_rows, width, raised);
    }
    for (std::int64_t t = 0; t < num_rows; ++t) {
        const std::int64_t place = t * width + first;
        kernels.activate(activation, gated + place, gate ? raised + place : nullptr, last - first);
    }
}

// Whether the inputs of gate and up are multiplied in their 8-bit form.
bool needs_codes(const ExpertMatrices& matrices) {
    return is_low_bit(matrices.up.format) || (matrices.gate && is_low_bit(matrices.gate->format));
}

// The biases of down, which come after those of gate and up.
const float* down_biases(const ExpertMatrices& matrices) {
    return matrices.biases + (matrices.gate ? 2 : 1) * matrices.up.rows;
}

// The rows of x [T][M] that each expert has, one expert's after the other's.
std::unique_ptr<float[]> rows_of_experts(const float* x, std::int64_t cols,
                                         const std::vector<ChosenExpert>& experts) {
    std::int64_t count = 0;
    for (const ChosenExpert& expert : experts) count += expert.num_rows;
    auto rows = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count * cols));
    float* to = rows.get();
    for (const ChosenExpert& expert : experts) {
        for (std::int64_t i = 0; i < expert.num_rows; ++i, to += cols) {
            std::copy_n(x + expert.rows[i] * cols, cols, to);
        }
    }
    return rows;
}

}  // namespace

std::int64_t expert_ffn_bytes(std::int64_t num_tokens, std::int64_t width, std::int64_t inner_width,
                              bool has_gate, bool chooses_rows) {
    const std::int64_t chosen = chooses_rows ? num_tokens * width * kFloatBytes : 0;
    const std::int64_t hidden = (has_gate ? 2 : 1) * num_tokens * inner_width * kFloatBytes;
    return chosen + rounded_bytes(num_tokens, width) + hidden + rounded_bytes(num_tokens, inner_width);
}

std::int64_t expert_ffns_bytes(std::int64_t num_tokens, std::int64_t top_k, std::int64_t width,
                               std::int64_t inner_width) {
    const std::int64_t num_rows = num_tokens * top_k;
    const std::int64_t hidden = 2 * num_rows * inner_width * kFloatBytes;
    if (num_tokens == 1) {
        return rounded_bytes(1, width) + hidden + rounded_bytes(num_rows, inner_width, /*are_apart=*/true);
    }
    const std::int64_t chosen = num_rows * width * kFloatBytes;
    return chosen + parted_bytes(num_rows, width) + hidden + parted_bytes(num_rows, inner_width);
}

void expert_ffn(const float* x, std::int64_t num_tokens, const ExpertMatrices& matrices,
                Activation activation, float* out, const std::int32_t* rows) {
    if (num_tokens == 0) return;
    const Matrix &up = matrices.up, &down = matrices.down;
    std::unique_ptr<float[]> chosen;
    if (rows != nullptr) {
        chosen = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(num_tokens * up.cols));
        parallel_for(num_tokens, kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) {
                std::copy_n(x + rows[t] * up.cols, up.cols, chosen.get() + t * up.cols);
            }
        });
        x = chosen.get();
    }
    const QuantizedRows inputs(x, num_tokens, up.cols, needs_codes(matrices));
    const auto size = static_cast<std::size_t>(num_tokens * up.rows);
    const auto hidden = std::make_unique_for_overwrite<float[]>(matrices.gate ? 2 * size : size);
    float* const gated = hidden.get();
    float* const raised = matrices.gate ? gated + size : nullptr;
    const std::int64_t grain = group_grain(up, num_tokens);
    parallel_for(num_groups(up.rows), grain, [&](std::int64_t begin, std::int64_t end) {
        fill_inner(matrices, *inputs, begin, end, activation, gated, raised);
    });
    matmul(gated, num_tokens, down, out);
    if (matrices.biases == nullptr) return;
    add_bias(down_biases(matrices), 0, down.rows, num_tokens, down.rows, out);
}

void expert_ffns(const float* x, std::int64_t num_tokens, const std::vector<ChosenExpert>& experts,
                 Activation activation) {
    if (experts.empty()) return;
    const Kernels& kernels = active_kernels();
    const auto count = static_cast<std::int64_t>(experts.size());
    const Matrix &any_up = experts.front().matrices.up, &any_down = experts.front().matrices.down;
    const bool has_gate = experts.front().matrices.gate.has_value();
    const std::int64_t width = any_up.rows;
    const bool need_codes = std::any_of(experts.begin(), experts.end(), [](const ChosenExpert& expert) {
        return needs_codes(expert.matrices);
    });
    const bool needs_hidden_codes =
        std::any_of(experts.begin(), experts.end(),
                    [](const ChosenExpert& expert) { return is_low_bit(expert.matrices.down.format); });
    std::vector<std::int64_t> starts = {0};
    for (const ChosenExpert& expert : experts) starts.push_back(starts.back() + expert.num_rows);
    // A single token is the input of all, rounded once.
    const bool is_shared = num_tokens == 1;
    const std::unique_ptr<float[]> chosen = is_shared ? nullptr : rows_of_experts(x, any_up.cols, experts);
    const PartedRows inputs(is_shared ? x : chosen.get(), any_up.cols,
                            is_shared ? std::vector<std::int64_t>{0, 1} : starts, need_codes);
    const std::int64_t size = starts.back() * width;
    const auto hidden = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(2 * size));
    float* const gated = hidden.get();
    float* const raised = has_gate ? gated + size : nullptr;
    const std::int64_t up_groups = num_groups(width), down_groups = num_groups(any_down.rows);
    parallel_for(count * up_groups, group_grain(any_up, 1), [&](std::int64_t begin, std::int64_t end) {
        for_each_part(begin, end, up_groups, [&](std::size_t e, std::int64_t from, std::int64_t to) {
            const std::int64_t offset = starts[e] * width;
            fill_inner(experts[e].matrices, inputs.part(is_shared ? 0 : e), from, to, activation,
                       gated + offset, has_gate ? raised + offset : nullptr);
        });
    });
    const PartedRows inner(gated, width, starts, needs_hidden_codes);
    parallel_for(count * down_groups, group_grain(any_down, 1), [&](std::int64_t begin, std::int64_t end) {
        for_each_part(begin, end, down_groups, [&](std::size_t e, std::int64_t from, std::int64_t to) {
            const auto& [matrices, rows, num_rows, out] = experts[e];
            const Matrix& down = matrices.down;
            kernels.matmul(down, inner.part(e), from, to, out, down.rows);
            if (matrices.biases == nullptr) return;
            add_bias(down_biases(matrices), from * kRowGroup, std::min(to * kRowGroup, down.rows), num_rows,
                     down.rows, out);
        });
    });
}

}  // namespace edgemoe
