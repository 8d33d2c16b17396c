#include "mixers/delta_rule.h"

#include <algorithm>
#include <cmath>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

// Under the root of a head's length, as the family was trained.
constexpr float kLengthEps = 1e-6f;

// x [N], of one head, becomes a vector of length `scale`.
EDGEMOE_FOR_EACH_ISA void set_length(float* x, std::int64_t dim, float scale) {
    constexpr std::int64_t kPartials = 16;
    float partial[kPartials] = {};
    std::int64_t i = 0;
    for (; i + kPartials <= dim; i += kPartials) {
        for (std::int64_t j = 0; j < kPartials; ++j) partial[j] += x[i + j] * x[i + j];
    }
    for (; i < dim; ++i) partial[0] += x[i] * x[i];
    float sum = 0;
    for (const float one : partial) sum += one;
    const float factor = scale / std::sqrt(sum + kLengthEps);
    for (i = 0; i < dim; ++i) x[i] *= factor;
}

EDGEMOE_FOR_EACH_ISA void take_step(const float* query, const float* key, const float* value,
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

}  // namespace

void activate_channels(const DeltaChannels& channels, std::int64_t num_rows, float* mixed) {
    const Kernels& kernels = active_kernels();
    const std::int64_t dim = channels.key_dim, key_width = channels.num_key_heads * dim;
    const float query_length = 1.0f / std::sqrt(static_cast<float>(dim));
    parallel_for(num_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            float* const row = mixed + t * channels.num_channels;
            kernels.activate(channels.activation, row, nullptr, channels.num_channels);
            for (std::int64_t h = 0; h < channels.num_key_heads; ++h) {
                set_length(row + h * dim, dim, query_length);
                set_length(row + key_width + h * dim, dim, 1.0f);
            }
        }
    });
}

void delta_step(const float* query, const float* key, const float* value, const float* decays, float beta,
                std::int64_t key_dim, std::int64_t value_dim, float* state, float* found, float* out) {
    take_step(query, key, value, decays, beta, key_dim, value_dim, state, found, out);
}

}  // namespace edgemoe
