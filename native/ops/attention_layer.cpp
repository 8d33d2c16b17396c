#include "ops/attention_layer.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace edgemoe {
namespace {

std::unique_ptr<float[]> floats(std::int64_t count) {
    return std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count));
}

// Rows of pairs of a query and its gate, C values each, become rows of queries and rows of gates.
void split_gates(const float* pairs, std::int64_t num_pairs, std::int64_t dim, float* queries, float* gates) {
    for (std::int64_t i = 0; i < num_pairs; ++i) {
        std::copy_n(pairs + 2 * i * dim, dim, queries + i * dim);
        std::copy_n(pairs + (2 * i + 1) * dim, dim, gates + i * dim);
    }
}

}  // namespace

void AttentionLayer::project(const float* normed, std::int64_t num_rows, float* queries, float* gates,
                             float* keys, float* values) const {
    const std::int64_t q_width = num_heads * head_dim, kv_width = num_kv_heads * head_dim;
    const auto pairs = has_gate ? floats(num_rows * 2 * q_width) : nullptr;
    float* const from_q = has_gate ? pairs.get() : queries;
    const bool has_values = v.matrix.packed != nullptr;
    const Product products[] = {{&q.matrix, from_q}, {&k.matrix, keys}, {&v.matrix, values}};
    matmul_each(normed, num_rows, std::span(products, has_values ? 3 : 2));
    const auto add_bias = [num_rows](const Projection& projection, float* out) {
        if (projection.bias != nullptr) add_to_rows(projection.bias, num_rows, projection.matrix.rows, out);
    };
    add_bias(q, from_q);
    add_bias(k, keys);
    if (has_values) {
        add_bias(v, values);
    } else {
        std::copy_n(keys, num_rows * kv_width, values);
    }
    if (has_gate) split_gates(from_q, num_rows * num_heads, head_dim, queries, gates);
}

void AttentionLayer::norm_heads(float* queries, float* keys, std::int64_t num_rows) const {
    const auto norm_rows = [&](const float* weight, std::int64_t total, float* rows) {
        if (weight == nullptr) return;
        const std::int64_t length = has_norms_of_heads ? head_dim : total;
        rms_norm(rows, num_rows * total / length, length, weight, eps, rows);
    };
    norm_rows(q_norm, num_heads * head_dim, queries);
    norm_rows(k_norm, num_kv_heads * head_dim, keys);
}

std::int64_t AttentionLayer::working_bytes(std::int64_t num_rows, std::int64_t num_keys, std::int64_t width,
                                           std::int64_t num_heads, std::int64_t num_kv_heads,
                                           std::int64_t head_dim, std::int64_t value_dim, bool has_gate) {
    constexpr std::int64_t kFloatBytes = sizeof(float);
    const std::int64_t q_width = num_heads * head_dim, seen_width = num_heads * value_dim;
    const std::int64_t kv_width = num_kv_heads * (head_dim + value_dim);
    const std::int64_t kept =
        num_rows * (width + (has_gate ? 2 : 1) * q_width + seen_width + kv_width) * kFloatBytes;
    const std::int64_t pairs = has_gate ? num_rows * 2 * q_width * kFloatBytes : 0;
    return kept + std::max({pairs + rounded_bytes(num_rows, width), attention_bytes(num_keys),
                            filled_bytes(num_rows, seen_width)});
}

void AttentionLayer::run(float* x, std::int64_t num_rows, std::span<const Segment> segments) const {
    const std::int64_t width = q.matrix.cols, q_width = num_heads * head_dim,
                       k_width = num_kv_heads * head_dim, v_width = num_kv_heads * value_dim,
                       seen_width = num_heads * value_dim;
    const auto normed = floats(num_rows * width);
    const auto projected =
        floats(num_rows * (q_width + k_width + v_width + seen_width + (has_gate ? q_width : 0)));
    float* const queries = projected.get();
    float* const new_keys = queries + num_rows * q_width;
    float* const new_values = new_keys + num_rows * k_width;
    float* const seen = new_values + num_rows * v_width;
    float* const gates = seen + num_rows * seen_width;

    if (norm == nullptr) {
        std::copy_n(x, num_rows * width, normed.get());
    } else if (norm_bias != nullptr) {
        layer_norm(x, num_rows, norm_width, norm, norm_bias, eps, normed.get(), width);
    } else {
        rms_norm(x, num_rows, norm_width, norm, eps, normed.get(), width);
    }
    project(normed.get(), num_rows, queries, gates, new_keys, new_values);
    if (!has_norms_of_heads) norm_heads(queries, new_keys, num_rows);
    if (clip > 0) {
        std::for_each(queries, seen, [this](float& value) { value = std::clamp(value, -clip, clip); });
    }
    if (has_norms_of_heads) norm_heads(queries, new_keys, num_rows);
    if (normalizes_values) {
        rms_norm(new_values, num_rows * num_kv_heads, value_dim, nullptr, eps, new_values);
    }
    if (value_scale != 1.0f) {
        std::for_each(new_values, seen, [this](float& value) { value *= value_scale; });
    }

    for (const Segment& s : segments) {
        const std::int64_t q_at = s.first_row * q_width, k_at = s.first_row * k_width;
        KvLayout of_values = s.layout;
        of_values.head_dim = value_dim;
        if (s.num_pairs > 0) {
            rope(queries + q_at, s.num_rows, num_heads, head_dim, s.cos, s.sin, s.num_pairs);
            rope(new_keys + k_at, s.num_rows, num_kv_heads, head_dim, s.cos, s.sin, s.num_pairs);
        }
        store_kv(s.keys, s.layout, new_keys + k_at, s.num_rows, s.start);
        store_kv(s.values, of_values, new_values + s.first_row * v_width, s.num_rows, s.start);
        Attention attended = {s.num_rows, num_heads, s.start, window, scale};
        attended.bias = s.bias;
        attended.bias_reach = s.bias_reach;
        attended.sinks = sinks;
        attended.value_dim = attended.value_stride = value_dim;
        attention(queries + q_at, s.keys, s.values, s.layout, attended, seen + s.first_row * seen_width);
    }
    if (has_gate) {
        for (std::int64_t i = 0; i < num_rows * q_width; ++i) seen[i] /= 1.0f + std::exp(-gates[i]);
    }
    float* const added = normed.get();
    matmul_filled(seen, num_rows, seen_width, o.matrix, added);
    if (o.bias != nullptr) add_to_rows(o.bias, num_rows, width, added);
    if (post_norm != nullptr) rms_norm(added, num_rows, norm_width, post_norm, eps, added, width);
    if (branch_scale == 1.0f) {
        for (std::int64_t i = 0; i < num_rows * width; ++i) x[i] += added[i];
    } else {
        for (std::int64_t i = 0; i < num_rows * width; ++i) x[i] += branch_scale * added[i];
    }
}

}  // namespace edgemoe
