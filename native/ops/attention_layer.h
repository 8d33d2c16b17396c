// The attention half of a decoder's layer, from the residual stream back into it: norm, projections, norms of
// queries and keys, rotation, cache, attention, output projection. Letters as in ops.h.
#pragma once

#include <cstdint>

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
    float scale;
    std::int64_t window;  // see Attention
    float clip;           // queries, keys and values are cut at -clip and clip; 0: they are not
    float eps;
    const float* norm;   // [D]
    Projection q, k, v;  // D columns; H C, G C and G C rows
    Projection o;        // H C columns, D rows
    // Norms over every head [C], or over all heads together [H C] and [G C]; nullptr: none.
    bool has_norms_of_heads;
    const float* q_norm;
    const float* k_norm;

    // Where the tokens of a call stand. The first is at position `start`.
    struct Positions {
        std::int64_t start;
        // Queries and keys are rotated by the angles in cos, sin [T][R]; R = 0: they are not.
        const float* cos;
        const float* sin;
        std::int64_t num_pairs;  // R
        const float* bias;       // see Attention
        std::int64_t bias_reach;
    };

    // x [T][D] += what the tokens see in keys and values [G][S][C], to which they are added.
    void run(float* x, std::int64_t num_tokens, const Positions& positions, void* keys, void* values,
             const KvLayout& layout) const;
};

}  // namespace edgemoe
