// The float operations of a decoder between its matrix products. Letters: T tokens, D model width,
// H query heads, G key/value heads, C head dimension, S cache slots, E experts, K chosen experts.
// The result for one token never depends on the other tokens of the call or on the number of threads.
#pragma once

#include <cstdint>

#include "kernels/matmul.h"

namespace edgemoe {

// out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight, for each row of `width` values; weight == nullptr:
// times 1. out may be x. Rows lie `stride` apart (0: width); what lies between them becomes 0.
void rms_norm(const float* x, std::int64_t num_rows, std::int64_t width, const float* weight, float eps,
              float* out, std::int64_t stride = 0);

// out[r] = (x[r] - mean(x[r])) / sqrt(variance(x[r]) + eps) * weight + bias, for each row as in rms_norm.
void layer_norm(const float* x, std::int64_t num_rows, std::int64_t width, const float* weight,
                const float* bias, float eps, float* out, std::int64_t stride = 0);

// Adds row [D] to each row of x.
void add_to_rows(const float* row, std::int64_t num_rows, std::int64_t width, float* x);

// Rotates pairs (i, R + i), i < R, of every head of x [T][H][C] by the angles in cos, sin [T][R].
void rope(float* x, std::int64_t num_tokens, std::int64_t num_heads, std::int64_t head_dim, const float* cos,
          const float* sin, std::int64_t num_pairs);

// Whether every number of x is finite.
bool all_finite(const float* x, std::int64_t n);

// Whether rms_norm can take all rows of x: they are finite, and so are the sums of their squares.
bool squares_finite(const float* x, std::int64_t num_rows, std::int64_t width);

struct KvLayout {
    std::int64_t num_heads;  // G
    std::int64_t num_slots;  // S
    std::int64_t head_dim;   // C
    bool is_f16;
};

// cache [G][S][C] at slots [start, start + T) becomes x [T][G][C]. Throws std::overflow_error, once all is
// written, if that is not finite in a cache of f16; what is computed from such keys can look like an answer.
void store_kv(void* cache, const KvLayout& layout, const float* x, std::int64_t num_tokens,
              std::int64_t start);

struct Attention {
    std::int64_t num_tokens;
    std::int64_t num_heads;  // H, a multiple of G
    std::int64_t start;      // query t has position start + t and sees positions up to its own
    std::int64_t window;     // and, when positive, only the last `window` of them
    float scale;
    // What is added to the scores: bias [H][2 R - 1] has at R - 1 + d what a key d positions after its query
    // gets; nullptr: nothing.
    const float* bias = nullptr;
    std::int64_t bias_reach = 0;  // R, above every distance that occurs
    std::int64_t num_keys = 0;    // when positive, every query sees exactly the first `num_keys` positions
    // When positive, values are the first `value_dim` entries of what `values` holds for each slot, and so is
    // the result of a head; else all C of them.
    std::int64_t value_dim = 0;
    std::int64_t value_stride = 0;  // entries of `values` for each slot, when positive; else C
    const float* sinks = nullptr;   // [H], one more score of each head, of nothing; nullptr: none
};

void attention(const float* q, const void* keys, const void* values, const KvLayout& layout,
               const Attention& a, float* out);

// Most bytes that attention takes at a time where a query sees up to `num_keys`: each thread's scores.
std::int64_t attention_bytes(std::int64_t num_keys);

// out [T][D] = sum over k, in the order 0..K-1, of weights [T][K] times row places [T][K] of parts [T K][D];
// places == nullptr: row t K + k.
void combine(const float* parts, const std::int32_t* places, const float* weights, std::int64_t num_tokens,
             std::int64_t top_k, std::int64_t width, float* out);

}  // namespace edgemoe
