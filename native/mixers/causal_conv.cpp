#include "mixers/causal_conv.h"

#include <algorithm>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"

namespace edgemoe {
namespace {

// Rows that are worth a thread's while.
constexpr std::int64_t kRowGrain = 8;

EDGEMOE_FOR_EACH_ISA void add_tap(const float* x, const float* tap, std::int64_t count, float* sums) {
    for (std::int64_t c = 0; c < count; ++c) sums[c] += x[c] * tap[c];
}

}  // namespace

void CausalConv::run(const float* x, std::int64_t num_rows, float* tail, float* out) const {
    const std::int64_t kept = num_taps - 1;
    // Row `t` of the text as far as it is here: before row 0 come those of the tail.
    const auto row = [&](std::int64_t t) {
        return t < 0 ? tail + (kept + t) * num_channels : x + t * num_channels;
    };
    parallel_for(num_rows, kRowGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t) {
            float* const sums = out + t * num_channels;
            if (bias != nullptr) {
                std::copy_n(bias, num_channels, sums);
            } else {
                std::fill_n(sums, num_channels, 0.0f);
            }
            for (std::int64_t j = 0; j < num_taps; ++j) {
                add_tap(row(t - kept + j), taps + j * num_channels, num_channels, sums);
            }
        }
    });
    if (num_rows >= kept) {
        std::copy_n(row(num_rows - kept), kept * num_channels, tail);
        return;
    }
    std::copy(tail + num_rows * num_channels, tail + kept * num_channels, tail);
    std::copy_n(x, num_rows * num_channels, tail + (kept - num_rows) * num_channels);
}

}  // namespace edgemoe
