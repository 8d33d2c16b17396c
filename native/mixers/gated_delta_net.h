// Gated delta net (arXiv 2412.06464): a matrix a head that forgets, and that each token writes to and reads
// from.
//
// From the residual stream back into it: norm, projections, convolution, delta rule, gated norm, output
// projection. Letters: T rows of a step, D width, Hk key heads, Hv value heads (a multiple), Dk and Dv their
// dimensions, C the channels of queries, keys and values together, 2 Hk Dk + Hv Dv, K taps.
//
// Tokens run one after the other, so that bits do not depend on how a text is cut; heads run side by side.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"
#include "mixers/causal_conv.h"
#include "mixers/recurrent.h"

namespace edgemoe {

struct GatedDeltaNet {
    std::int64_t num_key_heads;  // Hk
    std::int64_t
        num_value_heads;     // Hv; heads h r .. h r + r - 1 of values belong to head h of keys, r = Hv / Hk
    std::int64_t key_dim;    // Dk
    std::int64_t value_dim;  // Dv
    float eps;
    std::int64_t norm_width;   // entries of a row that count, D or fewer; zeros are behind them
    const float* norm;         // [norm_width]
    Matrix qkv;                // D columns, C rows: queries, keys, values
    Matrix z;                  // D columns, Hv Dv rows: gates of the output
    Matrix beta;               // D columns, Hv rows: how much of a value is written
    Matrix alpha;              // D columns, Hv rows: how much is forgotten
    const float* decay;        // [Hv], below 0: its factor
    const float* dt_bias;      // [Hv], added to alpha's products
    CausalConv conv;           // over C channels
    const float* output_norm;  // [Dv], of every head
    Matrix out;                // Hv Dv columns, D rows
    float branch_scale = 1;
    Activation activation = Activation::kSilu;  // of what the convolution gives

    StateShape state_shape() const { return {num_value_heads, key_dim, value_dim}; }
    std::int64_t width() const { return qkv.cols; }  // D

    // x [T][D] += what its rows make of their texts. Segments cover all rows, each once. Without `commits`
    // the texts are left as they were; the result has the same bits.
    void run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments, bool commits) const;

    // Most bytes that `run` takes at a time, whatever the formats.
    static std::int64_t working_bytes(std::int64_t num_rows, std::int64_t width, std::int64_t num_key_heads,
                                      std::int64_t num_value_heads, std::int64_t key_dim,
                                      std::int64_t value_dim);

    // Floats of a record for each row.
    std::int64_t record_width() const;

    // Moves a text on by as many rows as `text` has, of those in a record, as `run` would have.
    void replay(const float* record, std::int64_t num_recorded, const RecurrentSegment& text) const;

  private:
    struct Projected;

    void run_text(const Projected& projected, const RecurrentSegment& segment, bool commits,
                  float* outputs) const;
};

}  // namespace edgemoe
