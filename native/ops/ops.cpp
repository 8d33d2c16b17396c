#include "ops/ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

// Rows of a cheap row-wise operation that are worth a thread's while.
constexpr std::int64_t kRowGrain = 16;
// Partial sums of a long reduction: enough for the compiler to fill a vector.
constexpr std::int64_t kPartials = 16;
// Cached positions times heads below which attention stays on the calling thread.
constexpr std::int64_t kAttentionGrain = 256;
// Scores of one thread that fit the processor's second cache: so many queries of a long text share the
// reading of its keys, but always a few.
constexpr std::int64_t kScoresTogether = std::int64_t{1} << 17;
constexpr std::int64_t kFewQueries = 4;

[[gnu::always_inline]] inline float mean_square(const float* x, std::int64_t n) {
    float partial[kPartials] = {};
    std::int64_t i = 0;
    for (; i + kPartials <= n; i += kPartials) {
        for (std::int64_t j = 0; j < kPartials; ++j) partial[j] += x[i + j] * x[i + j];
    }
    for (; i < n; ++i) partial[0] += x[i] * x[i];
    return std::accumulate(partial, partial + kPartials, 0.0f) / static_cast<float>(n);
}

EDGEMOE_FOR_EACH_ISA void norm_row(const float* x, std::int64_t width, const float* weight, float eps,
                                   float* out) {
    const float inverse = 1.0f / std::sqrt(mean_square(x, width) + eps);
    if (weight == nullptr) {
        for (std::int64_t i = 0; i < width; ++i) out[i] = x[i] * inverse;
        return;
    }
    for (std::int64_t i = 0; i < width; ++i) out[i] = x[i] * inverse * weight[i];
}

EDGEMOE_FOR_EACH_ISA void combine_row(const float* parts, const std::int32_t* places, const float* weights,
                                      std::int64_t top_k, std::int64_t width, float* out) {
    std::fill_n(out, width, 0.0f);
    for (std::int64_t k = 0; k < top_k; ++k) {
        const float weight = weights[k];
        const float* part = parts + (places != nullptr ? places[k] : k) * width;
        for (std::int64_t i = 0; i < width; ++i) out[i] += weight * part[i];
    }
}

EDGEMOE_FOR_EACH_ISA float mean_square_of_row(const float* x, std::int64_t n) { return mean_square(x, n); }

// Without branches, for the compiler to fill vectors with.
EDGEMOE_FOR_EACH_ISA bool has_special(const float* x, std::int64_t n) {
    constexpr std::uint32_t kExponent = 0x7f800000;
    std::uint32_t num_special = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        num_special += (std::bit_cast<std::uint32_t>(x[i]) & kExponent) == kExponent;
    }
    return num_special != 0;
}

bool all_finite(const std::uint16_t* halves, std::int64_t n) {
    constexpr std::uint16_t kExponent = 0x7c00;
    int num_special = 0;
    for (std::int64_t i = 0; i < n; ++i) num_special += (halves[i] & kExponent) == kExponent;
    return num_special == 0;
}

// Queries of one key head that a thread takes on together: as many as share keys well, but some for every
// thread.
std::int64_t queries_together(std::int64_t num_queries, std::int64_t num_keys) {
    const std::int64_t threads = num_threads();
    const std::int64_t by_scores =
        std::max(kFewQueries, kScoresTogether / std::max<std::int64_t>(1, num_keys));
    return std::min(
        {kMostQueries, by_scores, std::max<std::int64_t>(1, (num_queries + threads - 1) / threads)});
}

// What a head of a token sees, without its numbers.
AttendedQuery query_of(const Attention& a, std::int64_t token, std::int64_t head) {
    const std::int64_t position = a.start + token;
    const std::int64_t first = a.window > 0 ? std::max<std::int64_t>(0, position - a.window + 1) : 0;
    const float* bias = nullptr;
    if (a.bias != nullptr) {
        bias = a.bias + head * (2 * a.bias_reach - 1) + a.bias_reach - 1 + first - position;
    }
    const float* const sink = a.sinks != nullptr ? a.sinks + head : nullptr;
    return {nullptr, nullptr, first, a.num_keys > 0 ? a.num_keys : position + 1, bias, sink};
}

}  // namespace

bool all_finite(const float* x, std::int64_t n) {
    constexpr std::int64_t kPiece = std::int64_t{1} << 24;  // whose special numbers 32 bits can count
    for (std::int64_t i = 0; i < n; i += kPiece) {
        if (has_special(x + i, std::min(kPiece, n - i))) return false;
    }
    return true;
}

bool squares_finite(const float* x, std::int64_t num_rows, std::int64_t width) {
    for (std::int64_t r = 0; r < num_rows; ++r) {
        if (!std::isfinite(mean_square_of_row(x + r * width, width))) return false;
    }
    return true;
}

void rms_norm(const float* x, std::int64_t num_rows, std::int64_t width, const float* weight, float eps,
              float* out, std::int64_t stride) {
    const std::int64_t step = stride > 0 ? stride : width;
    parallel_for(num_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
            norm_row(x + r * step, width, weight, eps, out + r * step);
            std::fill_n(out + r * step + width, step - width, 0.0f);
        }
    });
}

void layer_norm(const float* x, std::int64_t num_rows, std::int64_t width, const float* weight,
                const float* bias, float eps, float* out, std::int64_t stride) {
    const std::int64_t step = stride > 0 ? stride : width;
    parallel_for(num_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
            const float* const from = x + r * step;
            float* const to = out + r * step;
            const double sum = std::accumulate(from, from + width, 0.0);
            const auto mean = static_cast<float>(sum / static_cast<double>(width));
            for (std::int64_t i = 0; i < width; ++i) to[i] = from[i] - mean;
            norm_row(to, width, weight, eps, to);
            for (std::int64_t i = 0; i < width; ++i) to[i] += bias[i];
            std::fill_n(to + width, step - width, 0.0f);
        }
    });
}

void add_to_rows(const float* row, std::int64_t num_rows, std::int64_t width, float* x) {
    for (std::int64_t r = 0; r < num_rows; ++r) {
        for (std::int64_t i = 0; i < width; ++i) x[r * width + i] += row[i];
    }
}

void rope(float* x, std::int64_t num_tokens, std::int64_t num_heads, std::int64_t head_dim, const float* cos,
          const float* sin, std::int64_t num_pairs) {
    parallel_for(num_tokens, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin * num_heads; row < end * num_heads; ++row) {
            const float* c = cos + row / num_heads * num_pairs;
            const float* s = sin + row / num_heads * num_pairs;
            float* first = x + row * head_dim;
            float* second = first + num_pairs;
            for (std::int64_t i = 0; i < num_pairs; ++i) {
                const float a = first[i], b = second[i];
                first[i] = a * c[i] - b * s[i];
                second[i] = b * c[i] + a * s[i];
            }
        }
    });
}

void store_kv(void* cache, const KvLayout& layout, const float* x, std::int64_t num_tokens,
              std::int64_t start) {
    const auto [num_heads, num_slots, dim, is_f16] = layout;
    const Kernels& kernels = active_kernels();
    bool is_finite = true;
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        for (std::int64_t g = 0; g < num_heads; ++g) {
            const float* from = x + (t * num_heads + g) * dim;
            const std::int64_t to = (g * num_slots + start + t) * dim;
            if (is_f16) {
                std::uint16_t* const halves = static_cast<std::uint16_t*>(cache) + to;
                kernels.to_halves(from, dim, halves);
                is_finite = is_finite && all_finite(halves, dim);
            } else {
                std::copy_n(from, dim, static_cast<float*>(cache) + to);
            }
        }
    }
    if (!is_finite) throw std::overflow_error("keys or values are beyond f16");
}

std::int64_t attention_bytes(std::int64_t num_keys) {
    const std::int64_t num_scores =
        std::min(kMostQueries * num_keys, std::max(kScoresTogether, kFewQueries * num_keys));
    return num_threads() * num_scores * static_cast<std::int64_t>(sizeof(float));
}

void attention(const float* q, const void* keys, const void* values, const KvLayout& layout,
               const Attention& a, float* out) {
    const auto [num_kv_heads, num_slots, dim, is_f16] = layout;
    const std::int64_t queries_per_key = a.num_heads / num_kv_heads;
    const std::int64_t value_dim = a.value_dim > 0 ? a.value_dim : dim;
    const std::int64_t value_stride = a.value_stride > 0 ? a.value_stride : dim;
    const std::int64_t element = is_f16 ? 2 : 4;
    const std::int64_t last = a.num_keys > 0 ? a.num_keys : a.start + a.num_tokens;
    const std::int64_t num_queries = a.num_tokens * queries_per_key;  // of a key head
    const std::int64_t together = queries_together(num_kv_heads * num_queries, last);
    const std::int64_t parts = (num_queries + together - 1) / together;
    const std::int64_t grain =
        std::max<std::int64_t>(1, kAttentionGrain / std::max<std::int64_t>(1, last * together));
    const Kernels& kernels = active_kernels();
    parallel_for(num_kv_heads * parts, grain, [&](std::int64_t begin, std::int64_t end) {
        const auto scores =
            std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(together * last));
        AttendedQuery queries[kMostQueries];
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t kv_head = i / parts, first_query = i % parts * together;
            const std::int64_t count = std::min(together, num_queries - first_query);
            // Heads of a token stand beside each other: they see the same keys.
            for (std::int64_t j = 0; j < count; ++j) {
                const std::int64_t token = (first_query + j) / queries_per_key;
                const std::int64_t head = kv_head * queries_per_key + (first_query + j) % queries_per_key;
                queries[j] = query_of(a, token, head);
                const std::int64_t row = token * a.num_heads + head;
                queries[j].q = q + row * dim;
                queries[j].out = out + row * value_dim;
            }
            const std::int64_t first = queries[0].first;  // later tokens see no earlier positions
            for (std::int64_t j = 0; j < count; ++j) {
                queries[j].first -= first;
                queries[j].last -= first;
            }
            const Attended seen = {is_f16, queries[count - 1].last, dim, value_dim, value_stride, a.scale};
            const std::int64_t slot = kv_head * num_slots + first;
            kernels.attend(queries, count, static_cast<const char*>(keys) + slot * dim * element,
                           static_cast<const char*>(values) + slot * value_stride * element, seen,
                           scores.get());
        }
    });
}

void combine(const float* parts, const std::int32_t* places, const float* weights, std::int64_t num_tokens,
             std::int64_t top_k, std::int64_t width, float* out) {
    parallel_for(num_tokens, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            const std::int64_t first = t * top_k;
            combine_row(places != nullptr ? parts : parts + first * width,
                        places != nullptr ? places + first : nullptr, weights + first, top_k, width,
                        out + t * width);
        }
    });
}

}  // namespace edgemoe
