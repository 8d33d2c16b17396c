// The routed experts of one layer on one batch of tokens, computed in any order, summed in a fixed one.
// Letters: T tokens, D width, K chosen.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "experts/gate.h"
#include "kernels/expert_ffn.h"

namespace edgemoe {

// Collects the outputs of single experts in any order and sums them in the order of their ranks, so that
// what was there first never changes a result.
class ExpertLayerOutput {
  public:
    // What is routed outlives it.
    ExpertLayerOutput(const Routed& routed, Activation activation);

    // Computes experts, each by its number in the layer, for the tokens that chose it: every one is chosen by
    // some token. For few tokens they run in one go.
    void add(const std::vector<int>& experts, const std::vector<ExpertMatrices>& matrices);
    // Most bytes that all this takes at a time, whatever the formats, for experts of one shape.
    static std::int64_t working_bytes(std::int64_t num_tokens, std::int64_t top_k, std::int64_t width,
                                      std::int64_t expert_width, bool has_gate);
    // The sum [T][D], weighted; every chosen expert has been added.
    void combine(float* out) const;
    // Of a single token: the sum [D] over the experts that have been added until now.
    void combine_added(float* out) const;

  private:
    // An expert, the tokens that chose it, and its place among the outputs.
    ChosenExpert choice(int expert, const ExpertMatrices& matrices);

    const Routed& routed_;
    Activation activation_;
    std::unique_ptr<float[]> parts_;   // [T K][D]
    std::vector<std::int64_t> added_;  // of a single token: the ranks of its experts that are there
    // Of several tokens: the outputs of one expert lie side by side, so that it writes them, and reads its
    // tokens, in one go. By expert where they start; of each the token; and [T][K] where they are.
    std::vector<std::int64_t> starts_;
    std::vector<std::int32_t> tokens_;
    std::vector<std::int32_t> places_;
};

}  // namespace edgemoe
