#include "ops/latent_layer.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace edgemoe {
namespace {

std::unique_ptr<float[]> floats(std::int64_t count) {
    return std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count));
}

// Row r of `count` rows of `width` values: from and to places `from_stride` and `to_stride` apart.
void copy_rows(const float* from, std::int64_t from_stride, std::int64_t count, std::int64_t width, float* to,
               std::int64_t to_stride) {
    for (std::int64_t r = 0; r < count; ++r) std::copy_n(from + r * from_stride, width, to + r * to_stride);
}

}  // namespace

void LatentLayer::project_queries(const float* normed, std::int64_t num_rows, float* queries) const {
    if (q_a.packed == nullptr) {
        matmul(normed, num_rows, q_b, queries);
        return;
    }
    const auto low = floats(num_rows * q_a.rows);
    matmul(normed, num_rows, q_a, low.get());
    if (q_a_bias != nullptr) add_to_rows(q_a_bias, num_rows, q_a.rows, low.get());
    rms_norm(low.get(), num_rows, query_rank, q_a_norm, inner_eps, low.get(), q_a.rows);
    matmul(low.get(), num_rows, q_b, queries);
}

void LatentLayer::project_latents(const float* normed, std::int64_t num_rows,
                                  std::span<const Segment> segments, float* latents) const {
    const std::int64_t key_dim = latent_dim + rotary_dim;
    matmul(normed, num_rows, kv_a, latents);
    if (kv_a_bias != nullptr) add_to_rows(kv_a_bias, num_rows, key_dim, latents);
    for (std::int64_t r = 0; r < num_rows; ++r) {
        rms_norm(latents + r * key_dim, 1, latent_dim, kv_a_norm, inner_eps, latents + r * key_dim);
    }
    for (const Segment& s : segments) {
        if (s.cos == nullptr) continue;
        for (std::int64_t t = 0; t < s.num_rows; ++t) {
            float* const key = latents + (s.first_row + t) * key_dim + latent_dim;
            const std::int64_t angle = t * rotary_dim / 2;
            rope(key, 1, 1, rotary_dim, s.cos + angle, s.sin + angle, rotary_dim / 2);
        }
    }
}

void LatentLayer::absorb(const float* queries, std::int64_t num_rows, std::span<const Segment> segments,
                         float* absorbed) const {
    const std::int64_t head_dim = plain_dim + rotary_dim, key_dim = latent_dim + rotary_dim;
    const auto plain = floats(num_heads * num_rows * k_b.cols);
    std::fill_n(plain.get(), num_heads * num_rows * k_b.cols, 0.0f);  // what is added to N stays 0
    const std::int64_t padded_latent = k_b.rows / num_heads;
    const auto latent = floats(num_heads * num_rows * padded_latent);
    for (std::int64_t h = 0; h < num_heads; ++h) {
        copy_rows(queries + h * head_dim, num_heads * head_dim, num_rows, plain_dim,
                  plain.get() + h * num_rows * k_b.cols, k_b.cols);
    }
    matmul_parts(plain.get(), num_rows, k_b, num_heads, latent.get());
    for (std::int64_t h = 0; h < num_heads; ++h) {
        copy_rows(latent.get() + h * num_rows * padded_latent, padded_latent, num_rows, latent_dim,
                  absorbed + h * key_dim, num_heads * key_dim);
    }
    // Rotated parts go through the memory of what was plain: all heads of a row side by side.
    const auto rotated = floats(num_rows * num_heads * rotary_dim);
    copy_rows(queries + plain_dim, head_dim, num_rows * num_heads, rotary_dim, rotated.get(), rotary_dim);
    for (const Segment& s : segments) {
        if (s.cos == nullptr) continue;
        rope(rotated.get() + s.first_row * num_heads * rotary_dim, s.num_rows, num_heads, rotary_dim, s.cos,
             s.sin, rotary_dim / 2);
    }
    copy_rows(rotated.get(), rotary_dim, num_rows * num_heads, rotary_dim, absorbed + latent_dim, key_dim);
}

void LatentLayer::gate_values(const float* normed, std::int64_t num_rows, float* values) const {
    const auto gates = floats(num_rows * num_heads);
    matmul(normed, num_rows, gate, gates.get());
    for (std::int64_t i = 0; i < num_rows * num_heads; ++i) {
        const float factor = 1.0f / (1.0f + std::exp(-gates[static_cast<std::size_t>(i)]));
        for (std::int64_t c = 0; c < value_dim; ++c) values[i * value_dim + c] *= factor;
    }
}

std::int64_t LatentLayer::working_bytes(std::int64_t num_rows, std::int64_t num_keys, const Sizes& sizes) {
    const auto& [width, heads, query_rank, latent_dim, plain_dim, rotary_dim, value_dim] = sizes;
    constexpr std::int64_t kFloatBytes = sizeof(float);
    const auto round_up = [](std::int64_t n, std::int64_t multiple) {
        return (n + multiple - 1) / multiple * multiple;
    };
    const std::int64_t key_dim = latent_dim + rotary_dim, padded_plain = round_up(plain_dim, kBlock),
                       padded_value = round_up(value_dim, kRowGroup),
                       padded_latent = round_up(latent_dim, kRowGroup);
    const auto floats_of = [num_rows = num_rows](std::int64_t count) {
        return num_rows * count * kFloatBytes;
    };
    // matmul_parts: all heads of one row, or the rows of one head.
    const auto parts_bytes = [heads = heads, num_rows = num_rows](std::int64_t cols) {
        return num_rows == 1 ? rounded_bytes(heads, cols, true) : rounded_bytes(num_rows, cols);
    };
    const std::int64_t low_width = filled_cols(query_rank), latent_cols = filled_cols(latent_dim);
    const std::int64_t querying = floats_of(low_width) + rounded_bytes(num_rows, std::max(width, low_width));
    const std::int64_t absorbing = floats_of(heads * (padded_plain + padded_latent)) +
                                   std::max(parts_bytes(padded_plain), floats_of(heads * rotary_dim));
    const std::int64_t before =
        floats_of(key_dim + heads * (plain_dim + rotary_dim)) + std::max(querying, absorbing);
    const std::int64_t found =
        floats_of(heads * value_dim) + std::max(filled_bytes(num_rows, heads * value_dim),
                                                rounded_bytes(num_rows, width) + floats_of(heads));
    const std::int64_t after = floats_of(heads * std::max(latent_dim, padded_value)) +
                               std::max({attention_bytes(num_keys), parts_bytes(latent_cols), found});
    return floats_of(width + heads * std::max(key_dim, latent_cols)) + std::max(before, after);
}

void LatentLayer::run(float* x, std::int64_t num_rows, std::span<const Segment> segments) const {
    const std::int64_t width = o.rows, key_dim = latent_dim + rotary_dim;
    const std::int64_t padded_dim = v_b.rows / num_heads;  // C'
    const auto normed = floats(num_rows * width);
    const auto absorbed = floats(num_rows * num_heads * std::max(key_dim, v_b.cols));
    {
        const auto latents = floats(num_rows * key_dim);
        const auto queries = floats(num_rows * q_b.rows);
        rms_norm(x, num_rows, norm_width, norm, eps, normed.get(), width);
        project_queries(normed.get(), num_rows, queries.get());
        project_latents(normed.get(), num_rows, segments, latents.get());
        absorb(queries.get(), num_rows, segments, absorbed.get());
        for (const Segment& s : segments) {
            store_kv(s.cache, s.layout, latents.get() + s.first_row * key_dim, s.num_rows, s.start);
        }
    }
    const auto seen = floats(num_rows * num_heads * std::max(latent_dim, padded_dim));
    for (const Segment& s : segments) {
        Attention attended = {s.num_rows, num_heads, s.start, 0, scale};
        attended.value_dim = latent_dim;  // the first entries of the keys
        attention(absorbed.get() + s.first_row * num_heads * key_dim, s.cache, s.cache, s.layout, attended,
                  seen.get() + s.first_row * num_heads * latent_dim);
    }
    // By head, then back by row; `absorbed` is free by now.
    float* const by_head = absorbed.get();
    if (v_b.cols > latent_dim) std::fill_n(by_head, num_rows * num_heads * v_b.cols, 0.0f);
    for (std::int64_t h = 0; h < num_heads; ++h) {
        copy_rows(seen.get() + h * latent_dim, num_heads * latent_dim, num_rows, latent_dim,
                  by_head + h * num_rows * v_b.cols, v_b.cols);
    }
    matmul_parts(by_head, num_rows, v_b, num_heads, seen.get());
    const auto values = floats(num_rows * num_heads * value_dim);
    for (std::int64_t h = 0; h < num_heads; ++h) {
        copy_rows(seen.get() + h * num_rows * padded_dim, padded_dim, num_rows, value_dim,
                  values.get() + h * value_dim, num_heads * value_dim);
    }
    if (gate.packed != nullptr) gate_values(normed.get(), num_rows, values.get());
    float* const added = normed.get();
    matmul_filled(values.get(), num_rows, num_heads * value_dim, o, added);
    if (o_bias != nullptr) add_to_rows(o_bias, num_rows, width, added);
    if (post_norm != nullptr) rms_norm(added, num_rows, norm_width, post_norm, eps, added, width);
    for (std::int64_t i = 0; i < num_rows * width; ++i) {
        x[i] += branch_scale == 1.0f ? added[i] : branch_scale * added[i];
    }
}

}  // namespace edgemoe
