#include "experts/residency.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <tuple>

namespace edgemoe {
namespace {

std::size_t index(int expert) { return static_cast<std::size_t>(expert); }

}  // namespace

Residency::Residency(const UseStatistics& statistics, const EvictionPolicy& policy,
                     std::int64_t capacity_bytes, double floor_share)
    : statistics_(statistics),
      policy_(policy),
      capacity_bytes_(capacity_bytes),
      floor_bytes_(static_cast<std::int64_t>(floor_share * static_cast<double>(capacity_bytes) /
                                             statistics.catalog().num_layers())),
      layer_bytes_(index(statistics.catalog().num_layers())),
      is_resident_(index(statistics.catalog().num_experts())),
      is_pinned_(is_resident_.size()),
      is_reserved_(is_resident_.size()) {}

std::optional<std::vector<int>> Residency::take(int expert, bool is_demand) {
    const std::int64_t num_bytes = catalog().num_bytes(expert);
    const std::int64_t missing_bytes = used_bytes_ + num_bytes - capacity_bytes_;
    std::optional<std::vector<int>> leaving = std::vector<int>{};
    if (missing_bytes > 0) leaving = choose(missing_bytes, expert, is_demand);
    if (!leaving) return std::nullopt;
    for (const int victim : *leaving) {
        drop(victim);
        is_resident_[index(victim)] = false;
    }
    used_bytes_ += num_bytes;
    layer_bytes_[index(catalog().position(expert))] += num_bytes;
    return leaving;
}

void Residency::drop(int expert) {
    const std::int64_t num_bytes = catalog().num_bytes(expert);
    used_bytes_ -= num_bytes;
    layer_bytes_[index(catalog().position(expert))] -= num_bytes;
}

void Residency::admit(int expert) { is_resident_[index(expert)] = true; }

std::vector<int> Residency::missing(const std::vector<int>& experts) const {
    std::vector<int> absent;
    std::copy_if(experts.begin(), experts.end(), std::back_inserter(absent),
                 [this](int expert) { return !is_resident_[index(expert)]; });
    return absent;
}

int Residency::num_resident() const {
    return static_cast<int>(std::count(is_resident_.begin(), is_resident_.end(), true));
}

void Residency::pin(const std::vector<int>& experts, bool is_pinned) {
    for (const int expert : experts) is_pinned_[index(expert)] = is_pinned;
}

void Residency::unpin_all() { std::fill(is_pinned_.begin(), is_pinned_.end(), 0); }

void Residency::reserve(const std::vector<int>& experts, bool is_reserved) {
    for (const int expert : experts) is_reserved_[index(expert)] = is_reserved;
}

std::optional<std::vector<int>> Residency::choose(std::int64_t missing_bytes, int expert, bool is_demand) {
    auto leaving = cheapest(missing_bytes, expert);
    if (leaving || !is_demand) return leaving;
    // Better to lose what is expected, or a layer's last experts, than not to run.
    std::vector<int> candidates;
    for (int e = 0; e < catalog().num_experts(); ++e) {
        if (is_resident_[index(e)] && !is_pinned_[index(e)]) candidates.push_back(e);
    }
    std::vector<Candidate> all = rated(candidates);
    std::sort(all.begin(), all.end());
    leaving = std::vector<int>{};
    for (const auto& [worth, victim] : all) {
        leaving->push_back(victim);
        missing_bytes -= catalog().num_bytes(victim);
        if (missing_bytes <= 0) return leaving;
    }
    return std::nullopt;
}

std::optional<std::vector<int>> Residency::cheapest(std::int64_t missing_bytes, int expert) {
    const bool is_new = refresh_order(/*is_due=*/false);
    auto [leaving, freed_bytes] = pop(missing_bytes, expert);
    if (freed_bytes < missing_bytes && !is_new) {
        refresh_order(/*is_due=*/true);
        std::tie(leaving, freed_bytes) = pop(missing_bytes, expert);
    }
    if (freed_bytes < missing_bytes) return std::nullopt;
    return leaving;
}

std::pair<std::vector<int>, std::int64_t> Residency::pop(std::int64_t missing_bytes, int expert) {
    const int own_layer = catalog().position(expert);
    std::vector<int> leaving;
    std::int64_t freed_bytes = 0;
    while (!order_.empty() && freed_bytes < missing_bytes) {
        std::pop_heap(order_.begin(), order_.end(), std::greater<>());
        const int victim = order_.back().second;
        order_.pop_back();
        if (!may_leave(victim, own_layer)) continue;
        leaving.push_back(victim);
        freed_bytes += catalog().num_bytes(victim);
    }
    return {std::move(leaving), freed_bytes};
}

bool Residency::may_leave(int victim, int for_layer) const {
    const std::size_t v = index(victim);
    if (!is_resident_[v] || is_pinned_[v] || is_reserved_[v]) return false;
    const int layer = catalog().position(victim);
    const std::int64_t floor_bytes = statistics_.is_over(layer) ? 0 : floor_bytes_;
    return (layer == for_layer || layer_bytes_[index(layer)] > floor_bytes) &&
           statistics_.last_use(victim) <= *order_clock_;
}

bool Residency::refresh_order(bool is_due) {
    const std::int64_t clock = statistics_.clock();
    const bool is_short = policy_.depends_on_layer() || catalog().first_step() > 0;
    const int valid_layers = is_short ? 1 : catalog().num_layers();
    if (!is_due && order_clock_ && clock - *order_clock_ < valid_layers) return false;
    std::vector<int> candidates;
    for (int e = 0; e < catalog().num_experts(); ++e) {
        if (is_resident_[index(e)]) candidates.push_back(e);
    }
    order_ = rated(candidates);
    std::make_heap(order_.begin(), order_.end(), std::greater<>());
    order_clock_ = clock;
    return true;
}

std::vector<Residency::Candidate> Residency::rated(const std::vector<int>& candidates) const {
    const std::vector<double> worth = policy_.worth(statistics_, candidates);
    if (worth.size() != candidates.size()) {
        throw std::invalid_argument("an eviction policy must give one value for each candidate");
    }
    const int num_over = catalog().first_step() > 0 ? statistics_.num_over() : 0;
    std::vector<Candidate> all;
    all.reserve(candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        const bool is_over = candidates[i] < num_over;
        all.emplace_back(is_over ? -std::numeric_limits<double>::infinity() : worth[i], candidates[i]);
    }
    return all;
}

}  // namespace edgemoe
