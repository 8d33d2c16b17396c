#include "mixers/short_conv.h"

#include <memory>
#include <vector>

#include "ops/ops.h"

namespace edgemoe {

void ShortConv::run(float* x, std::int64_t num_rows, std::span<const Segment> segments, bool commits) const {
    const std::int64_t width = conv.num_channels;
    const auto floats = [](std::int64_t count) {
        return std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count));
    };
    const auto normed = floats(num_rows * width), parts = floats(3 * num_rows * width),
               gated = floats(num_rows * width), mixed = floats(num_rows * width);
    rms_norm(x, num_rows, width, norm, eps, normed.get());
    matmul(normed.get(), num_rows, in, parts.get());
    if (in_bias != nullptr) add_to_rows(in_bias, num_rows, 3 * width, parts.get());
    for (std::int64_t t = 0; t < num_rows; ++t) {
        const float* const row = parts.get() + 3 * t * width;
        for (std::int64_t i = 0; i < width; ++i)
            gated[static_cast<std::size_t>(t * width + i)] = row[i] * row[2 * width + i];
    }
    for (const Segment& segment : segments) {
        const std::int64_t at = segment.first_row * width;
        if (commits) {
            conv.run(gated.get() + at, segment.num_rows, segment.tail, mixed.get() + at);
            continue;
        }
        std::vector<float> spare(segment.tail, segment.tail + conv.tail_size());
        conv.run(gated.get() + at, segment.num_rows, spare.data(), mixed.get() + at);
    }
    for (std::int64_t t = 0; t < num_rows; ++t) {
        const float* const gate = parts.get() + (3 * t + 1) * width;
        for (std::int64_t i = 0; i < width; ++i) mixed[static_cast<std::size_t>(t * width + i)] *= gate[i];
    }
    matmul(mixed.get(), num_rows, out, normed.get());
    if (out_bias != nullptr) add_to_rows(out_bias, num_rows, width, normed.get());
    for (std::int64_t i = 0; i < num_rows * width; ++i)
        x[i] += branch_scale * normed[static_cast<std::size_t>(i)];
}

}  // namespace edgemoe
