// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) in its absorbed form, from the
// residual stream back into it: a cache holds one latent vector and one rotated key for each token, which all
// heads share, and each head's matrices of keys and values act on queries and on results instead.
//
// Letters: T rows, D width, H heads, Q rank of queries, L latent dimension, N and R plain and rotated
// dimension of a query's head, C dimension of a value's head, S slots. Q', L', N' and C' are Q, L, N and C
// rounded up to what packed matrices need.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matmul.h"
#include "ops/ops.h"

namespace edgemoe {

struct LatentLayer {
    std::int64_t num_heads;   // H
    std::int64_t query_rank;  // Q; 0 where queries are made by one matrix
    std::int64_t latent_dim;  // L
    std::int64_t plain_dim;   // N
    std::int64_t rotary_dim;  // R
    std::int64_t value_dim;   // C
    float scale;
    float eps;                // of `norm` and `post_norm`
    float inner_eps;          // of the norms between matrices
    std::int64_t norm_width;  // entries of a row that count, D or fewer; zeros are behind them
    const float* norm;        // [norm_width]
    // A `q_a` without packed data: queries are made by `q_b` alone, which has D columns then.
    Matrix q_a;              // [Q'][D]
    const float* q_a_bias;   // [Q']; nullptr: none, as below
    const float* q_a_norm;   // [Q]
    Matrix q_b;              // [H (N + R)][Q' or D], of each head N plain rows, then R rotated ones
    Matrix kv_a;             // [L + R][D]
    const float* kv_a_bias;  // [L + R]
    const float* kv_a_norm;  // [L]
    Matrix k_b;              // [H L''][N']: of each head its keys' matrix transposed
    Matrix v_b;              // [H C'][L']
    Matrix gate;          // [H][D]: its logistic function multiplies what each head finds; none without data
    Matrix o;             // [D][H C or more: see matmul_filled]
    const float* o_bias;  // [D]
    const float* post_norm;  // [norm_width], applied to what is added to the stream; nullptr: none
    float branch_scale = 1;  // and then it is multiplied by this

    // Rows of one text. The first of them is at slot `start` of the cache [1][S][L + R].
    struct Segment {
        std::int64_t first_row;
        std::int64_t num_rows;
        std::int64_t start;
        void* cache;
        KvLayout layout;
        // Angles cos, sin [num_rows][R / 2] of pairs (i, R / 2 + i); nullptr: nothing rotates.
        const float* cos;
        const float* sin;
    };

    // x [T][D] += what its rows see in their texts' caches, to which they are added. Segments cover all rows,
    // each once.
    void run(float* x, std::int64_t num_rows, std::span<const Segment> segments) const;

    // What working_bytes asks for: letters as above, Q is 0 where queries are made by one matrix.
    struct Sizes {
        std::int64_t width, num_heads, query_rank, latent_dim, plain_dim, rotary_dim, value_dim;
    };

    // Most bytes that `run` takes at a time, whatever the formats; a row sees up to `num_keys`.
    static std::int64_t working_bytes(std::int64_t num_rows, std::int64_t num_keys, const Sizes& sizes);

  private:
    // What heads have found, values [T][H C], times the logistic function of their gates.
    void gate_values(const float* normed, std::int64_t num_rows, float* values) const;
    void project_queries(const float* normed, std::int64_t num_rows, float* queries) const;
    // Latents and keys [T][L + R], normed and rotated.
    void project_latents(const float* normed, std::int64_t num_rows, std::span<const Segment> segments,
                         float* latents) const;
    // Queries [T][H (N + R)] become queries of latents [T][H][L + R].
    void absorb(const float* queries, std::int64_t num_rows, std::span<const Segment> segments,
                float* absorbed) const;
};

}  // namespace edgemoe
