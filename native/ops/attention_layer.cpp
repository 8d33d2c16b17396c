#include "ops/attention_layer.h"

#include <algorithm>
#include <memory>

namespace edgemoe {

void AttentionLayer::run(float* x, std::int64_t num_tokens, const Positions& positions, void* keys,
                         void* values, const KvLayout& layout) const {
    const std::int64_t width = q.matrix.cols, q_width = num_heads * head_dim,
                       kv_width = num_kv_heads * head_dim;
    const auto normed = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(num_tokens * width));
    const auto projected = std::make_unique_for_overwrite<float[]>(
        static_cast<std::size_t>(num_tokens * 2 * (q_width + kv_width)));
    float* const queries = projected.get();
    float* const new_keys = queries + num_tokens * q_width;
    float* const new_values = new_keys + num_tokens * kv_width;
    float* const seen = new_values + num_tokens * kv_width;

    rms_norm(x, num_tokens, width, norm, eps, normed.get());
    const Product products[] = {{&q.matrix, queries}, {&k.matrix, new_keys}, {&v.matrix, new_values}};
    matmul_each(normed.get(), num_tokens, products);
    const auto add_bias = [&](const Projection& projection, float* out) {
        if (projection.bias != nullptr) add_to_rows(projection.bias, num_tokens, projection.matrix.rows, out);
    };
    add_bias(q, queries);
    add_bias(k, new_keys);
    add_bias(v, new_values);

    const auto norm_rows = [&](const float* weight, std::int64_t total, float* rows) {
        if (weight == nullptr) return;
        const std::int64_t length = has_norms_of_heads ? head_dim : total;
        rms_norm(rows, num_tokens * total / length, length, weight, eps, rows);
    };
    const auto norm_both = [&] {
        norm_rows(q_norm, q_width, queries);
        norm_rows(k_norm, kv_width, new_keys);
    };
    if (!has_norms_of_heads) norm_both();
    if (clip > 0) {
        std::for_each(queries, seen, [this](float& value) { value = std::clamp(value, -clip, clip); });
    }
    if (has_norms_of_heads) norm_both();
    if (positions.num_pairs > 0) {
        const float *cos = positions.cos, *sin = positions.sin;
        rope(queries, num_tokens, num_heads, head_dim, cos, sin, positions.num_pairs);
        rope(new_keys, num_tokens, num_kv_heads, head_dim, cos, sin, positions.num_pairs);
    }

    store_kv(keys, layout, new_keys, num_tokens, positions.start);
    store_kv(values, layout, new_values, num_tokens, positions.start);
    Attention attended = {num_tokens, num_heads, positions.start, window, scale};
    attended.bias = positions.bias;
    attended.bias_reach = positions.bias_reach;
    attention(queries, keys, values, layout, attended, seen);
    matmul(seen, num_tokens, o.matrix, normed.get());
    add_bias(o, normed.get());
    for (std::int64_t i = 0; i < num_tokens * width; ++i) x[i] += normed[static_cast<std::size_t>(i)];
}

}  // namespace edgemoe
