#include "mixers/short_conv.h"

#include <algorithm>

#include "ops/ops.h"

namespace edgemoe {

void ShortConv::run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments,
                    bool commits) const {
    const std::int64_t width = conv.num_channels;
    const auto normed = uninitialized(num_rows * width), parts = uninitialized(3 * num_rows * width),
               gated = uninitialized(num_rows * width), mixed = uninitialized(num_rows * width);
    rms_norm(x, num_rows, norm_width, norm, eps, normed.get(), width);
    matmul(normed.get(), num_rows, in, parts.get());
    if (in_bias != nullptr) add_to_rows(in_bias, num_rows, 3 * width, parts.get());
    for (std::int64_t t = 0; t < num_rows; ++t) {
        const float* const row = parts.get() + 3 * t * width;
        for (std::int64_t i = 0; i < width; ++i)
            gated[static_cast<std::size_t>(t * width + i)] = row[i] * row[2 * width + i];
    }
    for (const RecurrentSegment& segment : segments) {
        const std::int64_t at = segment.first_row * width;
        if (segment.record != nullptr) {
            std::copy_n(gated.get() + at, segment.num_rows * width, segment.record);
        }
        convolve(conv, gated.get() + at, segment, commits, mixed.get() + at);
    }
    for (std::int64_t t = 0; t < num_rows; ++t) {
        const float* const gate = parts.get() + (3 * t + 1) * width;
        for (std::int64_t i = 0; i < width; ++i) mixed[static_cast<std::size_t>(t * width + i)] *= gate[i];
    }
    matmul(mixed.get(), num_rows, out, normed.get());
    if (out_bias != nullptr) add_to_rows(out_bias, num_rows, width, normed.get());
    add_scaled(normed.get(), num_rows * width, branch_scale, x);
}

std::int64_t ShortConv::working_bytes(std::int64_t num_rows, std::int64_t width) {
    return float_bytes(6 * num_rows * width) + rounded_bytes(num_rows, width);
}

std::int64_t ShortConv::record_width() const { return conv.num_channels; }

void ShortConv::replay(const float* record, std::int64_t, const RecurrentSegment& text) const {
    const FloatBuffer mixed = uninitialized(text.num_rows * conv.num_channels);
    convolve(conv, record, text, true, mixed.get());
}

}  // namespace edgemoe
