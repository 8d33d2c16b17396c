// Scores of experts that are not chosen yet, from what a layer's router has seen. Letters: T tokens, D width,
// E experts of the layer, K chosen, C columns.
#pragma once

#include <cstdint>

#include "experts/use_statistics.h"
#include "kernels/matmul.h"

namespace edgemoe {

// What the router saw and chose: x [T][D], ids and weights [T][K].
struct Routed {
    const float* x;
    const std::int32_t* ids;
    const float* weights;
    std::int64_t num_tokens, width, top_k;
};

// out [T][rows of the head] is the product of the head with, for each token, the state x (D), the weights of
// the chosen by expert (E) and 1; further columns of the head multiply nothing.
void gate_scores(const Routed& routed, std::int64_t num_experts, const Matrix& head, float* out);

// Tells the statistics what the next token will use of the layer at `position`: the scores of its own
// experts, of the last token of what has been routed there. The head has a row for each of them.
void expect_next_use(UseStatistics& statistics, int position, const Routed& routed, const Matrix& head);

}  // namespace edgemoe
