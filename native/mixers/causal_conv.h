// A convolution over the tokens of a text, channel by channel, which sees no token after its own. Letters: T
// rows of one text, C channels, K taps.
#pragma once

#include <cstdint>

namespace edgemoe {

struct CausalConv {
    std::int64_t num_channels;  // C
    std::int64_t num_taps;      // K
    const float* taps;          // [K][C], the last for the token itself
    const float* bias;          // [C], or nullptr

    std::int64_t tail_size() const { return (num_taps - 1) * num_channels; }

    // out [T][C] from x [T][C] and the K - 1 rows before it, tail [K - 1][C], which become the last rows of
    // both. Sums run from the oldest tap to the newest, however a text is cut.
    void run(const float* x, std::int64_t num_rows, float* tail, float* out) const;
};

}  // namespace edgemoe
