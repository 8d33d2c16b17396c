// A router's rule as Python holds it: with the arrays that it points to.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "ops/router.h"

namespace edgemoe::bindings {

class BoundRouter {
  public:
    BoundRouter(std::int64_t num_experts, std::int64_t top_k, const std::string& score,
                std::optional<Floats1> choice_bias, std::optional<Floats1> expert_scale,
                std::int64_t num_groups, std::int64_t kept_groups, bool groups_by_highest, bool renormalize,
                float sum_eps, bool is_eps_minimum, float scale, float jitter)
        : choice_bias_(std::move(choice_bias)), expert_scale_(std::move(expert_scale)) {
        constexpr const char* kName = "Router";
        static const std::map<std::string, Score> kScores = {
            {"softmax", Score::kSoftmax},
            {"softmax_of_picked", Score::kSoftmaxOfPicked},
            {"sigmoid", Score::kSigmoid},
            {"sparse_mixer", Score::kSparseMixer},
        };
        const auto found = kScores.find(score);
        require(found != kScores.end(), kName, "unknown score '" + score + "'");
        require(num_experts >= 1 && top_k >= 1 && top_k <= num_experts, kName,
                "top_k is outside 1..number of experts");
        require(num_groups >= 1 && num_experts % num_groups == 0, kName,
                "experts cannot be parted into so many groups");
        require(kept_groups >= 1 && kept_groups <= num_groups &&
                    top_k <= kept_groups * (num_experts / num_groups),
                kName, "the groups that are kept have fewer experts than are chosen");
        require(found->second != Score::kSparseMixer || top_k <= 2, kName, "the sparse mixer chooses two");
        if (choice_bias_) require_equal(size(*choice_bias_, 0), num_experts, kName, "length of choice_bias");
        if (expert_scale_) {
            require_equal(size(*expert_scale_, 0), num_experts, kName, "length of expert_scale");
        }
        router_ = {num_experts, top_k, found->second};
        router_.choice_bias = choice_bias_ ? choice_bias_->data() : nullptr;
        router_.num_groups = num_groups;
        router_.kept_groups = kept_groups;
        router_.groups_by_highest = groups_by_highest;
        router_.renormalize = renormalize;
        router_.sum_eps = sum_eps;
        router_.is_eps_minimum = is_eps_minimum;
        router_.scale = scale;
        router_.expert_scale = expert_scale_ ? expert_scale_->data() : nullptr;
        router_.jitter = jitter;
    }

    const Router& operator*() const { return router_; }
    const Router* operator->() const { return &router_; }

  private:
    std::optional<Floats1> choice_bias_, expert_scale_;
    Router router_;
};

}  // namespace edgemoe::bindings
