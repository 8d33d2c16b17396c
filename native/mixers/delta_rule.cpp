#include "mixers/delta_rule.h"

#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/kernels.h"
#include "mixers/state_columns.h"

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

// What a token does to n vectors of columns of the state, rows `stride` apart.
template <int n>
[[gnu::always_inline]] inline void pass_columns(const DeltaToken& token, std::int64_t key_dim,
                                                std::int64_t first, float* columns, std::int64_t stride) {
    Lanes found[n] = {}, read[n] = {};
    for (std::int64_t k = 0; k < key_dim; ++k) {
        for (int i = 0; i < n; ++i) {
            Lanes kept;
            load_lanes(columns + k * stride + i * kLanesOfColumns, kept);
            found[i] += kept * token.decays[k] * token.key[k];
        }
    }
    for (int i = 0; i < n; ++i) {
        Lanes value;
        load_lanes(token.value + first + i * kLanesOfColumns, value);
        found[i] = token.beta * (value - found[i]);
    }
    for (std::int64_t k = 0; k < key_dim; ++k) {
        for (int i = 0; i < n; ++i) {
            float* const place = columns + k * stride + i * kLanesOfColumns;
            Lanes kept;
            load_lanes(place, kept);
            kept = kept * token.decays[k] + token.key[k] * found[i];
            store_lanes(kept, place);
            read[i] += kept * token.query[k];
        }
    }
    for (int i = 0; i < n; ++i) store_lanes(read[i], token.out + first + i * kLanesOfColumns);
}

// The same for columns from `first` on, n vectors at a time and then fewer; returns the first that are left.
template <int n>
[[gnu::always_inline]] inline std::int64_t pass_row(const DeltaToken& token, std::int64_t key_dim,
                                                    std::int64_t value_dim, std::int64_t first,
                                                    float* state) {
    for (; first + n * kLanesOfColumns <= value_dim; first += n * kLanesOfColumns) {
        pass_columns<n>(token, key_dim, first, state + first, value_dim);
    }
    if constexpr (n > kColumnVectors) return pass_row<n / 2>(token, key_dim, value_dim, first, state);
    return first;
}

// The same for one column.
[[gnu::always_inline]] inline void pass_column(const DeltaToken& token, std::int64_t key_dim,
                                               std::int64_t column, float* state, std::int64_t stride) {
    float found = 0, read = 0;
    for (std::int64_t k = 0; k < key_dim; ++k) {
        found += state[k * stride + column] * token.decays[k] * token.key[k];
    }
    found = token.beta * (token.value[column] - found);
    for (std::int64_t k = 0; k < key_dim; ++k) {
        float& kept = state[k * stride + column];
        kept = kept * token.decays[k] + token.key[k] * found;
        read += kept * token.query[k];
    }
    token.out[column] = read;
}

// `columns` [Dk][kColumns] is scratch: tokens pass there, as rows of a state that is wider lie too far apart
// for the first cache to keep them.
EDGEMOE_FOR_EACH_ISA void take_steps(const DeltaToken* tokens, std::int64_t num_tokens, std::int64_t key_dim,
                                     std::int64_t value_dim, float* state, float* columns) {
    std::int64_t first = num_tokens == 1 ? pass_row<kRowVectors>(tokens[0], key_dim, value_dim, 0, state) : 0;
    for (; first + kColumns <= value_dim; first += kColumns) {
        copy_columns(state + first, value_dim, key_dim, kColumns, columns, kColumns);
        for (std::int64_t t = 0; t < num_tokens; ++t) {
            pass_columns<kColumnVectors>(tokens[t], key_dim, first, columns, kColumns);
        }
        copy_columns(columns, kColumns, key_dim, kColumns, state + first, value_dim);
    }
    for (; first < value_dim; ++first) {
        for (std::int64_t t = 0; t < num_tokens; ++t)
            pass_column(tokens[t], key_dim, first, state, value_dim);
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

void delta_steps(std::span<const DeltaToken> tokens, std::int64_t key_dim, std::int64_t value_dim,
                 float* state) {
    std::vector<float> columns(tokens.size() > 1 ? static_cast<std::size_t>(key_dim * kColumns) : 0);
    take_steps(tokens.data(), std::ssize(tokens), key_dim, value_dim, state, columns.data());
}

}  // namespace edgemoe
