#include "ops/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/ops.h"

namespace edgemoe {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// exp(x - highest) of each, over their sum.
void softmax(const float* x, std::int64_t count, float* out) {
    const float highest = *std::max_element(x, x + count);
    float sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += out[i] = std::exp(x[i] - highest);
    for (std::int64_t i = 0; i < count; ++i) out[i] /= sum;
}

float group_score(const Router& router, const float* scores, std::int64_t size) {
    const std::int64_t count = router.groups_by_highest ? 1 : std::min<std::int64_t>(2, size);
    float sum = 0;
    for (const std::int32_t place : largest(scores, size, count)) sum += scores[place];
    return sum;
}

void drop_groups(const Router& router, float* scores) {
    const std::int64_t size = router.num_experts / router.num_groups;
    std::vector<float> of_groups;
    for (std::int64_t g = 0; g < router.num_groups; ++g) {
        of_groups.push_back(group_score(router, scores + g * size, size));
    }
    const std::vector<std::int32_t> order = largest(of_groups.data(), router.num_groups, router.num_groups);
    for (auto g = order.begin() + router.kept_groups; g != order.end(); ++g) {
        std::fill_n(scores + *g * size, size, kNever);
    }
}

// The softmax at `chosen` of the logits that are close to it, itself the highest of those not yet `taken`.
float weight_among_close(const Router& router, const float* logits, std::int32_t chosen, std::int32_t taken) {
    const float highest = logits[chosen];
    float sum = 0;
    for (std::int32_t e = 0; e < router.num_experts; ++e) {
        const float distance = (highest - logits[e]) / std::max(std::fabs(logits[e]), highest);
        if (e != taken && !(distance > 2 * router.jitter)) sum += std::exp(logits[e] - highest);
    }
    return 1 / sum;
}

}  // namespace

void Router::choice_scores(float* logits) const {
    const bool is_order_enough = choice_bias == nullptr && (num_groups == 1 || groups_by_highest);
    if (!is_order_enough && score == Score::kSigmoid) {
        std::transform(logits, logits + num_experts, logits, sigmoid);
    } else if (!is_order_enough && score == Score::kSoftmax) {
        softmax(logits, num_experts, logits);
    }
    if (choice_bias != nullptr) {
        for (std::int64_t e = 0; e < num_experts; ++e) logits[e] += choice_bias[e];
    }
    if (num_groups > 1) drop_groups(*this, logits);
}

void Router::choose(const float* logits, const float* choice, std::int32_t* ids, float* weights) const {
    const std::vector<std::int32_t> order = largest(choice, num_experts, top_k);
    std::copy(order.begin(), order.end(), ids);
    if (score == Score::kSparseMixer) {
        for (std::int64_t k = 0; k < top_k; ++k) {
            weights[k] = weight_among_close(*this, logits, ids[k], k == 0 ? -1 : ids[0]);
        }
        return;
    }
    float picked = 0;
    const float highest = *std::max_element(logits, logits + num_experts);
    for (std::int64_t k = 0; k < top_k; ++k) {
        const float logit = logits[ids[k]];
        picked += weights[k] = score == Score::kSigmoid ? sigmoid(logit) : std::exp(logit - highest);
    }
    float total = 1;
    if (score == Score::kSoftmaxOfPicked) {
        total = picked;
    } else if (score == Score::kSoftmax && (!renormalize || sum_eps > 0)) {
        float all = 0;
        for (std::int64_t e = 0; e < num_experts; ++e) all += std::exp(logits[e] - highest);
        total =
            renormalize ? (is_eps_minimum ? std::max(picked, sum_eps * all) : picked + sum_eps * all) : all;
    } else if (renormalize) {
        total = is_eps_minimum ? std::max(picked, sum_eps) : picked + sum_eps;
    }
    for (std::int64_t k = 0; k < top_k; ++k) {
        weights[k] /= total;
        weights[k] *= scale;
        if (expert_scale != nullptr) weights[k] *= expert_scale[ids[k]];
    }
}

std::vector<std::int32_t> largest(const float* values, std::int64_t num_values, std::int64_t count) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(num_values));
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + count, order.end(),
                      [values](std::int32_t a, std::int32_t b) {
                          return values[a] != values[b] ? values[a] > values[b] : a < b;
                      });
    order.resize(static_cast<std::size_t>(count));
    return order;
}

void choose_experts(const float* x, std::int64_t num_tokens, const Matrix& matrix, const float* bias,
                    const Router& router, std::int32_t* ids, float* weights, float* choice) {
    const std::int64_t num_experts = router.num_experts, top_k = router.top_k;
    matmul(x, num_tokens, matrix, choice);
    if (bias != nullptr) add_to_rows(bias, num_tokens, num_experts, choice);
    std::vector<float> logits(static_cast<std::size_t>(num_experts));
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        float* row = choice + t * num_experts;
        std::copy_n(row, num_experts, logits.begin());
        router.choice_scores(row);
        router.choose(logits.data(), row, ids + t * top_k, weights + t * top_k);
    }
}

}  // namespace edgemoe
