// Kimi delta attention (arXiv 2510.26692): a delta net whose heads forget each entry of a key by itself.
//
// From the residual stream back into it: norm, projections, convolution, delta rule, gated norm, output
// projection. Letters: T rows of a step, D width, H heads, Dk and Dv their dimensions, I = H Dk, J = H Dv,
// C = 2 I + J channels of queries, keys and values together, K taps.
//
// Tokens run one after the other, so that bits do not depend on how a text is cut; heads run side by side.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"
#include "mixers/causal_conv.h"
#include "mixers/recurrent.h"

namespace edgemoe {

// One matrix, or two of which the first has few rows; without packed data there is no first.
struct LowRank {
    Matrix first;
    Matrix second;
};

struct KimiDeltaNet {
    std::int64_t num_heads;  // H
    std::int64_t key_dim;    // Dk
    std::int64_t value_dim;  // Dv
    float eps;
    float lowest_log;          // 0: logarithms of decay have no bound, else that, below 0
    std::int64_t norm_width;   // entries of a row that count, D or fewer; zeros are behind them
    const float* norm;         // [norm_width]
    Matrix q, k, v;            // D columns, I, I and J rows
    LowRank forget;            // D columns, I rows: how much of each entry is forgotten
    LowRank gate;              // D columns, J rows: gates of the output
    Matrix beta;               // D columns, H rows: how much of a value is written
    const float* decay;        // [H], below 0: its factor
    const float* dt_bias;      // [I], added to the products of forget
    CausalConv conv;           // over C channels
    const float* output_norm;  // [Dv], of every head
    Matrix out;                // J columns, D rows
    float branch_scale = 1;
    Activation activation = Activation::kSilu;  // of what the convolution gives

    StateShape state_shape() const { return {num_heads, key_dim, value_dim}; }
    std::int64_t width() const { return q.cols; }  // D

    // x [T][D] += what its rows make of their texts. Segments cover all rows, each once. Without `commits`
    // the texts are left as they were; the result has the same bits.
    void run(float* x, std::int64_t num_rows, std::span<const RecurrentSegment> segments, bool commits) const;

    // Most bytes that `run` takes at a time, whatever the formats.
    static std::int64_t working_bytes(std::int64_t num_rows, std::int64_t width, std::int64_t num_heads,
                                      std::int64_t key_dim, std::int64_t value_dim, std::int64_t forget_rank,
                                      std::int64_t gate_rank);

    // Floats of a record for each row.
    std::int64_t record_width() const;

    // Moves a text on by as many rows as `text` has, of those in a record, as `run` would have.
    void replay(const float* record, std::int64_t num_recorded, const RecurrentSegment& text) const;

  private:
    struct Projected;
    struct Rows;

    Projected project(const float* x, std::int64_t num_rows) const;
    void run_text(const Rows& of_text, const RecurrentSegment& segment, bool commits, float* outputs) const;
    void run_head(std::int64_t head, const float* mixed, const float* forgotten, const float* betas,
                  std::int64_t num_rows, float* state, float* outputs) const;
    float kept(std::int64_t head, std::int64_t channel, float forgotten) const;
};

}  // namespace edgemoe
