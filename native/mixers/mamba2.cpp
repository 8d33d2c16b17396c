#include "mixers/mamba2.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/kernels.h"
#include "mixers/state_columns.h"
#include "ops/ops.h"

namespace edgemoe {
namespace {

// One token of one head.
struct Scanned {
    const float* values;  // [P]
    const float* along;   // [N]
    const float* query;   // [N]
    float decay;
    float step;
    float* out;  // [P]
};

// What a token does to n vectors of columns of S [N][P], rows `stride` apart: they decay, the values times
// its step are added along `along`, `query` reads; the values, times `skip`, are added to that.
template <int n>
[[gnu::always_inline]] inline void scan_columns(const Scanned& token, float skip, std::int64_t state_dim,
                                                std::int64_t first, float* columns, std::int64_t stride) {
    Lanes values[n], read[n];
    for (int i = 0; i < n; ++i) {
        load_lanes(token.values + first + i * kLanesOfColumns, values[i]);
        read[i] = skip * values[i];
    }
    for (std::int64_t s = 0; s < state_dim; ++s) {
        const float written = token.step * token.along[s];
        for (int i = 0; i < n; ++i) {
            float* const place = columns + s * stride + i * kLanesOfColumns;
            Lanes kept;
            load_lanes(place, kept);
            kept = kept * token.decay + written * values[i];
            store_lanes(kept, place);
            read[i] += kept * token.query[s];
        }
    }
    for (int i = 0; i < n; ++i) store_lanes(read[i], token.out + first + i * kLanesOfColumns);
}

// The same for columns from `first` on, n vectors at a time and then fewer; returns the first that are left.
template <int n>
[[gnu::always_inline]] inline std::int64_t scan_row(const Scanned& token, float skip, std::int64_t state_dim,
                                                    std::int64_t head_dim, std::int64_t first, float* state) {
    for (; first + n * kLanesOfColumns <= head_dim; first += n * kLanesOfColumns) {
        scan_columns<n>(token, skip, state_dim, first, state + first, head_dim);
    }
    if constexpr (n > kColumnVectors) {
        return scan_row<n / 2>(token, skip, state_dim, head_dim, first, state);
    }
    return first;
}

// The same for one column.
[[gnu::always_inline]] inline void scan_column(const Scanned& token, float skip, std::int64_t state_dim,
                                               std::int64_t column, float* state, std::int64_t stride) {
    float read = skip * token.values[column];
    for (std::int64_t n = 0; n < state_dim; ++n) {
        float& kept = state[n * stride + column];
        kept = kept * token.decay + token.step * token.along[n] * token.values[column];
        read += kept * token.query[n];
    }
    token.out[column] = read;
}

// `columns` [N][kColumns] is scratch, for several tokens.
EDGEMOE_FOR_EACH_ISA void scan(const Scanned* tokens, std::int64_t num_tokens, float skip,
                               std::int64_t state_dim, std::int64_t head_dim, float* state, float* columns) {
    std::int64_t first =
        num_tokens == 1 ? scan_row<kRowVectors>(tokens[0], skip, state_dim, head_dim, 0, state) : 0;
    for (; first + kColumns <= head_dim; first += kColumns) {
        copy_columns(state + first, head_dim, state_dim, kColumns, columns, kColumns);
        for (std::int64_t t = 0; t < num_tokens; ++t) {
            scan_columns<kColumnVectors>(tokens[t], skip, state_dim, first, columns, kColumns);
        }
        copy_columns(columns, kColumns, state_dim, kColumns, state + first, head_dim);
    }
    for (; first < head_dim; ++first) {
        for (std::int64_t t = 0; t < num_tokens; ++t) {
            scan_column(tokens[t], skip, state_dim, first, state, head_dim);
        }
    }
}

}  // namespace

void Mamba2::run_head(std::int64_t head, const float* channels, const float* steps_of_rows,
                      std::int64_t num_rows, float* state, float* outputs) const {
    const std::int64_t inner = num_heads * head_dim, most = std::min(num_rows, kTokensAtOnce);
    const std::int64_t group = head / (num_heads / num_groups);
    std::vector<Scanned> tokens(static_cast<std::size_t>(most));
    std::vector<float> columns(most > 1 ? static_cast<std::size_t>(state_dim * kColumns) : 0);
    for (std::int64_t begin = 0; begin < num_rows; begin += most) {
        const std::int64_t count = std::min(most, num_rows - begin);
        for (std::int64_t i = 0; i < count; ++i) {
            const std::int64_t t = begin + i;
            const float* const row = channels + t * conv.num_channels;
            const float* const along = row + inner + group * state_dim;
            const float raw = softplus(steps_of_rows[t * num_heads + head] + dt_bias[head]);
            const float step = std::clamp(raw, step_low, step_high);
            tokens[static_cast<std::size_t>(i)] = {
                row + head * head_dim,        along, along + num_groups * state_dim,
                std::exp(step * decay[head]), step,  outputs + t * inner + head * head_dim};
        }
        scan(tokens.data(), count, skip[head], state_dim, head_dim, state, columns.data());
    }
}

void Mamba2::run_text(const float* projected, const float* steps_of_rows, const RecurrentSegment& segment,
                      bool commits, float* outputs) const {
    const std::int64_t channels = conv.num_channels, rows = segment.num_rows;
    const FloatBuffer convolved = uninitialized(rows * channels);
    convolve(conv, projected, segment, commits, convolved.get());
    const Kernels& kernels = active_kernels();
    parallel_for(rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            kernels.activate(activation, convolved.get() + t * channels, nullptr, channels);
        }
    });
    for_each_head(segment, state_shape(), commits, [&](std::int64_t head, float* state) {
        run_head(head, convolved.get(), steps_of_rows, rows, state, outputs);
    });
}

void Mamba2::run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments,
                 bool commits) const {
    const std::int64_t width = z.cols, inner = num_heads * head_dim, channels = conv.num_channels;
    const auto normed = uninitialized(num_rows * width), projected = uninitialized(num_rows * channels),
               gates = uninitialized(num_rows * inner), outputs = uninitialized(num_rows * inner),
               steps_of_rows = uninitialized(num_rows * num_heads);
    rms_norm(x, num_rows, norm_width, norm, eps, normed.get(), width);
    const Product products[] = {{&z, gates.get()}, {&mixed, projected.get()}, {&steps, steps_of_rows.get()}};
    matmul_each(normed.get(), num_rows, products);
    if (in_bias != nullptr) {
        const float* bias = in_bias;
        for (const Product& product : products) {
            add_to_rows(bias, num_rows, product.matrix->rows, product.out);
            bias += product.matrix->rows;
        }
    }
    for (const RecurrentSegment& segment : segments) {
        const std::int64_t at = segment.first_row, rows = segment.num_rows;
        if (segment.record != nullptr) {
            float* const to = std::copy_n(projected.get() + at * channels, rows * channels, segment.record);
            std::copy_n(steps_of_rows.get() + at * num_heads, rows * num_heads, to);
        }
        run_text(projected.get() + at * channels, steps_of_rows.get() + at * num_heads, segment, commits,
                 outputs.get() + at * inner);
    }
    const Kernels& kernels = active_kernels();
    parallel_for(num_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        kernels.activate(Activation::kSilu, gates.get() + begin * inner, outputs.get() + begin * inner,
                         (end - begin) * inner);
    });
    rms_norm(gates.get(), num_rows * num_groups, inner / num_groups, nullptr, eps, gates.get());
    parallel_for(num_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            float* const row = gates.get() + t * inner;
            for (std::int64_t i = 0; i < inner; ++i) row[i] *= output_norm[i];
        }
    });
    matmul_filled(gates.get(), num_rows, inner, out, normed.get());
    if (out_bias != nullptr) add_to_rows(out_bias, num_rows, width, normed.get());
    add_scaled(normed.get(), num_rows * width, branch_scale, x);
}

std::int64_t Mamba2::working_bytes(std::int64_t num_rows, std::int64_t width, std::int64_t num_heads,
                                   std::int64_t head_dim, std::int64_t num_groups, std::int64_t state_dim) {
    const std::int64_t inner = num_heads * head_dim, channels = inner + 2 * num_groups * state_dim;
    const std::int64_t kept = float_bytes(num_rows * (width + channels + 2 * inner + num_heads));
    return kept + std::max({rounded_bytes(num_rows, width), float_bytes(num_rows * channels),
                            filled_bytes(num_rows, inner)});
}

std::int64_t Mamba2::record_width() const { return conv.num_channels + num_heads; }

void Mamba2::replay(const float* record, std::int64_t num_recorded, const RecurrentSegment& text) const {
    const FloatBuffer outputs = uninitialized(text.num_rows * num_heads * head_dim);
    run_text(record, record + num_recorded * conv.num_channels, text, true, outputs.get());
}

}  // namespace edgemoe
