// Gated short convolution (LFM2): what a token passes on is gated, a few tokens are mixed, and gated again.
//
// From the residual stream back into it. Letters: T rows of a step, D width, K taps.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"
#include "mixers/causal_conv.h"
#include "mixers/recurrent.h"

namespace edgemoe {

struct ShortConv {
    float eps;
    std::int64_t norm_width;  // entries of a row that count, D or fewer; zeros are behind them
    const float* norm;        // [norm_width]
    Matrix in;                // D columns, 3 D rows: gate before, gate after, values
    const float* in_bias;     // [3 D], or nullptr
    CausalConv conv;          // over D channels
    Matrix out;               // D columns and rows
    const float* out_bias;    // [D], or nullptr
    float branch_scale = 1;

    StateShape state_shape() const { return {0, 0, 0}; }
    std::int64_t width() const { return in.cols; }  // D

    // x [T][D] += what its rows make of their texts. Segments cover all rows, each once. Without `commits`
    // the texts are left as they were; the result has the same bits.
    void run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments, bool commits) const;

    // Most bytes that `run` takes at a time, whatever the formats.
    static std::int64_t working_bytes(std::int64_t num_rows, std::int64_t width);

    // Floats of a record for each row.
    std::int64_t record_width() const;

    // Moves a text on by as many rows as `text` has, of those in a record, as `run` would have.
    void replay(const float* record, std::int64_t num_recorded, const RecurrentSegment& text) const;
};

}  // namespace edgemoe
