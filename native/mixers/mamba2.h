// Mamba-2 (arXiv 2405.21060): a matrix a head that decays, and that each token adds an outer product to.
//
// From the residual stream back into it: norm, projections, convolution, recurrence, gated norm, output
// projection. Letters: T rows of a step, D width, H heads of P entries, I = H P, G groups of heads that share
// what they write and read along, N the length of that, C = I + 2 G N channels of the convolution, K taps.
//
// Tokens run one after the other, so that bits do not depend on how a text is cut; heads run side by side.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"
#include "mixers/causal_conv.h"
#include "mixers/recurrent.h"

namespace edgemoe {

struct Mamba2 {
    std::int64_t num_heads;   // H
    std::int64_t head_dim;    // P
    std::int64_t num_groups;  // G; H / G heads after each other belong to one
    std::int64_t state_dim;   // N
    float eps;
    float step_low, step_high;  // a token's step is kept between them
    std::int64_t norm_width;    // entries of a row that count, D or fewer; zeros are behind them
    const float* norm;          // [norm_width]
    Matrix z;                   // D columns, I rows: gates of the output
    Matrix mixed;               // D columns, C rows: values, what they are written along, what is read along
    Matrix steps;               // D columns, H rows: how far a token goes
    const float* in_bias;       // [I + C + H], added to the products of z, mixed and steps; or nullptr
    const float* decay;         // [H], below 0: its factor
    const float* dt_bias;       // [H], added to the products of steps
    const float* skip;          // [H]: a head's values are added to its output, times this
    CausalConv conv;            // over C channels
    const float* output_norm;   // [I], of each group of I / G entries after the gate
    Matrix out;                 // I columns, D rows
    const float* out_bias;      // [D], or nullptr
    float branch_scale = 1;
    Activation activation = Activation::kSilu;  // of what the convolution gives

    StateShape state_shape() const { return {num_heads, state_dim, head_dim}; }
    std::int64_t width() const { return z.cols; }  // D

    // x [T][D] += what its rows make of their texts. Segments cover all rows, each once. Without `commits`
    // the texts are left as they were; the result has the same bits.
    void run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments, bool commits) const;

    // Most bytes that `run` takes at a time, whatever the formats.
    static std::int64_t working_bytes(std::int64_t num_rows, std::int64_t width, std::int64_t num_heads,
                                      std::int64_t head_dim, std::int64_t num_groups, std::int64_t state_dim);

    // Floats of a record for each row.
    std::int64_t record_width() const;

    // Moves a text on by as many rows as `text` has, of those in a record, as `run` would have.
    void replay(const float* record, std::int64_t num_recorded, const RecurrentSegment& text) const;

  private:
    void run_text(const float* projected, const float* steps_of_rows, const RecurrentSegment& segment,
                  bool commits, float* outputs) const;
    void run_head(std::int64_t head, const float* channels, const float* steps_of_rows, std::int64_t num_rows,
                  float* state, float* outputs) const;
};

}  // namespace edgemoe
