// Gated networks, an expert's or a layer's own, on all threads. Letters: T tokens, D model width, F width of
// the network. The result for one token does not depend, in any bit, on the other tokens of the call or on
// the number of threads.
#pragma once

#include <optional>
#include <vector>

#include "kernels/kernels.h"

namespace edgemoe {

// The matrices of a network; some families have no gate.
struct ExpertMatrices {
    std::optional<Matrix> gate;
    Matrix up;
    Matrix down;
    // Or nullptr. Added to the products of the matrices: F of the gate, if there is one, F of up and D of
    // down, one after the other.
    const float* biases = nullptr;
};

// out [T][D] = down(act(gate(x)) * up(x)) for x [T][D]; without a gate down(act(up(x))). With `rows` [T] the
// tokens are those rows of x.
void expert_ffn(const float* x, std::int64_t num_tokens, const ExpertMatrices& matrices,
                Activation activation, float* out, const std::int32_t* rows = nullptr);

// Most bytes that expert_ffn takes at a time, whatever the formats: for all rows of x, or for chosen ones.
std::int64_t expert_ffn_bytes(std::int64_t num_tokens, std::int64_t width, std::int64_t inner_width,
                              bool has_gate, bool chooses_rows);

// One that some tokens have chosen, and where its outputs [num_rows][D] go. All have the same D and F, and
// all have a gate or none, and biases or none.
struct ChosenExpert {
    ExpertMatrices matrices;
    const std::int32_t* rows;  // of the tokens; nullptr where there is one token at all
    std::int64_t num_rows;
    float* out;
};

// What expert_ffn gives for each expert and its rows of x [T][D], with the bits of separate calls. All
// experts share two loops: with small experts, starting and ending a loop for each would cost as much as a
// third of the reading, and most would be computed by one thread.
void expert_ffns(const float* x, std::int64_t num_tokens, const std::vector<ChosenExpert>& experts,
                 Activation activation);

// Most bytes that expert_ffns takes at a time, whatever the formats, for T tokens with so many experts each.
std::int64_t expert_ffns_bytes(std::int64_t num_tokens, std::int64_t top_k, std::int64_t width,
                               std::int64_t inner_width);

}  // namespace edgemoe
