// How a router's logits become a choice of experts and their weights. Letters: T tokens, D model width,
// E experts, K chosen. The result for one token never depends on the other tokens of the call.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/matmul.h"

namespace edgemoe {

// What weights are made of.
enum class Score {
    kSoftmax,          // over all experts
    kSoftmaxOfPicked,  // over the chosen alone
    kSigmoid,
    kSparseMixer,  // Phi-3.5-MoE's (arXiv 2409.12136): two experts, each weighted among those close to it
};

// The rule of one layer's router. Its arrays outlive it.
struct Router {
    std::int64_t num_experts;  // E
    std::int64_t top_k;        // K
    Score score = Score::kSoftmax;
    // Added to the scores for the choice alone, [E]: weights are made of the scores without it.
    const float* choice_bias = nullptr;
    // The choice is among the `kept_groups` of `num_groups` equal groups of experts with the highest sum of
    // their two highest scores, or with the highest score alone.
    std::int64_t num_groups = 1, kept_groups = 1;
    bool groups_by_highest = false;
    // Weights are divided by their sum, to which `sum_eps` is added, or which is at least that.
    bool renormalize = false;
    float sum_eps = 0;
    bool is_eps_minimum = false;
    float scale = 1;                      // weights are multiplied by it
    const float* expert_scale = nullptr;  // and by that of the chosen expert, [E]
    float jitter = 0;                     // sparse mixer: how close, as half of a relative distance

    // What the choice is made by, in place of the logits [E]: the highest are chosen. Where nothing but the
    // order matters these are the logits themselves; experts of groups that are not kept get minus infinity.
    void choice_scores(float* logits) const;
    // Ids and weights [K] of one token, given logits and choice scores [E].
    void choose(const float* logits, const float* choice, std::int32_t* ids, float* weights) const;
};

// The places of the `count` largest of E values, descending, ties to the lower place.
std::vector<std::int32_t> largest(const float* values, std::int64_t num_values, std::int64_t count);

// Ids and weights [T][K] for x [T][D] times the matrix [E][D], plus the bias [E] unless that is nullptr;
// choice [T][E] becomes the choice scores.
void choose_experts(const float* x, std::int64_t num_tokens, const Matrix& matrix, const float* bias,
                    const Router& router, std::int32_t* ids, float* weights, float* choice);

}  // namespace edgemoe
