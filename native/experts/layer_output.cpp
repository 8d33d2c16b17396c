#include "experts/layer_output.h"

#include <algorithm>

#include "ops/ops.h"

namespace edgemoe {
namespace {

// Tokens whose experts share their loops. With more of them those are long enough, and what is kept meanwhile
// would grow.
constexpr std::int64_t kMostTogether = 16;

}  // namespace

ExpertLayerOutput::ExpertLayerOutput(const Routed& routed, Activation activation)
    : routed_(routed), activation_(activation) {
    const std::int64_t num_parts = routed.num_tokens * routed.top_k;
    parts_ = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(num_parts * routed.width));
    if (routed.num_tokens == 1) return;  // its parts lie in the order of their ranks
    const std::int32_t* ids = routed.ids;
    const auto largest = static_cast<std::size_t>(*std::max_element(ids, ids + num_parts));
    starts_.resize(largest + 2);
    for (std::int64_t i = 0; i < num_parts; ++i) ++starts_[static_cast<std::size_t>(ids[i]) + 1];
    for (std::size_t e = 0; e <= largest; ++e) starts_[e + 1] += starts_[e];
    std::vector<std::int64_t> next(starts_.begin(), starts_.end() - 1);
    tokens_.resize(static_cast<std::size_t>(num_parts));
    places_.resize(tokens_.size());
    for (std::int64_t i = 0; i < num_parts; ++i) {
        const std::int64_t place = next[static_cast<std::size_t>(ids[i])]++;
        tokens_[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(i / routed.top_k);
        places_[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(place);
    }
}

void ExpertLayerOutput::add(const std::vector<int>& experts, const std::vector<ExpertMatrices>& matrices) {
    std::vector<ChosenExpert> chosen;
    for (std::size_t i = 0; i < experts.size(); ++i) chosen.push_back(choice(experts[i], matrices[i]));
    if (routed_.num_tokens <= kMostTogether) {
        expert_ffns(routed_.x, routed_.num_tokens, chosen, activation_);
        return;
    }
    for (const auto& [one, rows, num_rows, out] : chosen) {
        expert_ffn(routed_.x, num_rows, one, activation_, out, rows);
    }
}

ChosenExpert ExpertLayerOutput::choice(int expert, const ExpertMatrices& matrices) {
    const auto part = [this](std::int64_t place) { return parts_.get() + place * routed_.width; };
    if (routed_.num_tokens == 1) {
        const std::int32_t* ids = routed_.ids;
        added_.push_back(std::find(ids, ids + routed_.top_k, expert) - ids);
        return {matrices, nullptr, 1, part(added_.back())};
    }
    const auto e = static_cast<std::size_t>(expert);
    const std::int64_t start = starts_[e];
    return {matrices, tokens_.data() + start, starts_[e + 1] - start, part(start)};
}

std::int64_t ExpertLayerOutput::working_bytes(std::int64_t num_tokens, std::int64_t top_k, std::int64_t width,
                                              std::int64_t expert_width, bool has_gate) {
    constexpr std::int64_t kPlaceBytes = sizeof(tokens_[0]) + sizeof(places_[0]);
    const std::int64_t num_parts = num_tokens * top_k;
    const std::int64_t kept = num_parts * (width * static_cast<std::int64_t>(sizeof(float)) + kPlaceBytes);
    const std::int64_t num_together = std::min(num_tokens, kMostTogether);
    return kept + std::max(expert_ffns_bytes(num_together, top_k, width, expert_width),
                           expert_ffn_bytes(num_tokens, width, expert_width, has_gate, true));
}

void ExpertLayerOutput::combine(float* out) const {
    edgemoe::combine(parts_.get(), places_.empty() ? nullptr : places_.data(), routed_.weights,
                     routed_.num_tokens, routed_.top_k, routed_.width, out);
}

void ExpertLayerOutput::combine_added(float* out) const {
    std::fill_n(out, routed_.width, 0.0f);
    for (const std::int64_t rank : added_) {
        const float* part = parts_.get() + rank * routed_.width;
        for (std::int64_t i = 0; i < routed_.width; ++i) out[i] += routed_.weights[rank] * part[i];
    }
}

}  // namespace edgemoe
