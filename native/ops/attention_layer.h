// The attention half of a decoder's layer, from the residual stream back into it: norm, projections, norms of
// queries and keys, rotation, cache, attention, gate, output projection. Letters as in ops.h.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"
#include "ops/ops.h"

namespace edgemoe {

struct AttentionLayer {
    // A matrix and what is added to its products [N], if anything.
    struct Projection {
        Matrix matrix;
        const float* bias;
    };

    std::int64_t num_heads;     // H
    std::int64_t num_kv_heads;  // G
    std::int64_t head_dim;      // C
    std::int64_t value_dim;     // V, of a head of the values; C where there is a gate or values are keys
    float value_scale = 1;      // of the values
    float scale;
    std::int64_t window;  // see Attention
    float clip;           // queries, keys and values are cut at -clip and clip; 0: they are not
    float eps;
    std::int64_t norm_width;           // entries of a row that count, D or fewer; zeros are behind them
    const float* norm;                 // [norm_width]; nullptr: what comes in is not normed
    const float* norm_bias = nullptr;  // the norm is of mean and variance; nullptr: of the mean square
    Projection q;  // D columns; H C rows, with a gate 2 H C: of each head C of the query, then C of its gate
    Projection k,
        v;         // D columns, G C and G V rows; a `v` without packed data: values are the keys as projected
    Projection o;  // H V columns, D rows
    // Norms over every head [C], or over all heads together [H C] and [G C]; nullptr: none.
    bool has_norms_of_heads;
    const float* q_norm;
    const float* k_norm;
    bool has_gate;           // what a head finds is multiplied by the logistic function of its gate
    bool normalizes_values;  // each head of the values is divided by its root mean square
    const float* sinks;      // see Attention
    const float* post_norm;  // [norm_width], applied to what is added to the stream; nullptr: none
    float branch_scale = 1;  // and then it is multiplied by this

    // Rows of one text. The first of them is at slot `start` of keys [G][S][C] and values [G][S][V], after
    // those before it.
    struct Segment {
        std::int64_t first_row;
        std::int64_t num_rows;
        std::int64_t start;
        void* keys;
        void* values;
        KvLayout layout;  // of the keys
        // Queries and keys are rotated by the angles in cos, sin [num_rows][R]; R = 0: they are not.
        const float* cos;
        const float* sin;
        std::int64_t num_pairs;  // R
        const float* bias;       // see Attention
        std::int64_t bias_reach;
    };

    // x [T][D] += what its rows see in their texts' keys and values, to which they are added. Segments cover
    // all rows, each once.
    void run(float* x, std::int64_t num_rows, std::span<const Segment> segments) const;

    // Most bytes that `run` takes at a time, whatever the formats; a row sees up to `num_keys`.
    static std::int64_t working_bytes(std::int64_t num_rows, std::int64_t num_keys, std::int64_t width,
                                      std::int64_t num_heads, std::int64_t num_kv_heads,
                                      std::int64_t head_dim, std::int64_t value_dim, bool has_gate);

  private:
    void project(const float* normed, std::int64_t num_rows, float* queries, float* gates, float* keys,
                 float* values) const;
    void norm_heads(float* queries, float* keys, std::int64_t num_rows) const;
};

}  // namespace edgemoe
