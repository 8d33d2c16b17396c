#include "mixers/mamba2.h"

#include <algorithm>
#include <cmath>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/kernels.h"
#include "ops/ops.h"

namespace edgemoe {
namespace {

// One token of one head: S [N][P] decays, the values times `step` are added along `along`, `query` reads.
EDGEMOE_FOR_EACH_ISA void scan_step(const float* values, const float* along, const float* query, float decay,
                                    float step, float skip, std::int64_t state_dim, std::int64_t head_dim,
                                    float* state, float* out) {
    for (std::int64_t p = 0; p < head_dim; ++p) out[p] = skip * values[p];
    for (std::int64_t n = 0; n < state_dim; ++n) {
        float* const row = state + n * head_dim;
        const float written = step * along[n], read = query[n];
        for (std::int64_t p = 0; p < head_dim; ++p) {
            row[p] = row[p] * decay + written * values[p];
            out[p] += row[p] * read;
        }
    }
}

}  // namespace

void Mamba2::run_head(std::int64_t head, const float* channels, const float* steps_of_rows,
                      std::int64_t num_rows, float* state, float* outputs) const {
    const std::int64_t inner = num_heads * head_dim;
    const std::int64_t group = head / (num_heads / num_groups);
    for (std::int64_t t = 0; t < num_rows; ++t) {
        const float* const row = channels + t * conv.num_channels;
        const float* const along = row + inner + group * state_dim;
        const float raw = softplus(steps_of_rows[t * num_heads + head] + dt_bias[head]);
        const float step = std::clamp(raw, step_low, step_high);
        scan_step(row + head * head_dim, along, along + num_groups * state_dim, std::exp(step * decay[head]),
                  step, skip[head], state_dim, head_dim, state, outputs + t * inner + head * head_dim);
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
    rms_norm(x, num_rows, width, norm, eps, normed.get());
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
