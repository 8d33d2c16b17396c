#include "experts/residency.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <stdexcept>

namespace edgemoe {
namespace {

// What it costs that an expert leaves: nothing where it is worth the least, and less where it lies apart.
constexpr double kNever = std::numeric_limits<double>::infinity(), kLiesApart = -1;

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
      is_reserved_(is_resident_.size()),
      places_(capacity_bytes, statistics.catalog().record_sizes()),
      costs_(is_resident_.size(), kNever) {}

bool Residency::has_room(int expert) const {
    return used_bytes_ + catalog().num_bytes(expert) <= capacity_bytes_ && places_.fits(expert);
}

std::optional<std::vector<int>> Residency::take(int expert, bool is_demand) {
    std::optional<std::vector<int>> leaving = std::vector<int>{};
    if (!has_room(expert)) leaving = choose(expert, is_demand);
    if (!leaving) return std::nullopt;
    for (const int victim : *leaving) {
        drop(victim);
        is_resident_[index(victim)] = false;
    }
    if (!places_.put(expert)) ++num_apart_;
    used_bytes_ += catalog().num_bytes(expert);
    layer_bytes_[index(catalog().position(expert))] += catalog().num_bytes(expert);
    return leaving;
}

void Residency::drop(int expert) {
    if (places_.contains(expert)) {
        places_.remove(expert);
    } else {
        --num_apart_;
    }
    used_bytes_ -= catalog().num_bytes(expert);
    layer_bytes_[index(catalog().position(expert))] -= catalog().num_bytes(expert);
    costs_[index(expert)] = kNever;
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

std::optional<std::vector<int>> Residency::choose(int expert, bool is_demand) {
    std::vector<int> leaving;
    if (num_apart_ == 0) leaving = cheapest(expert);  // else bytes are missing that no hole has
    if (!leaving.empty()) return leaving;
    if (!is_demand) return std::nullopt;
    // Better to lose what is expected, or a layer's last experts, than not to run.
    std::vector<Candidate> all = rated(residents(/*with_pinned=*/false));
    if (num_apart_ == 0) leaving = cheapest_run(all, catalog().num_bytes(expert));
    if (!leaving.empty()) return leaving;
    return cheapest_bytes(std::move(all), used_bytes_ + catalog().num_bytes(expert) - capacity_bytes_);
}

std::vector<int> Residency::cheapest(int expert) {
    const int own_layer = catalog().position(expert);
    const auto cost_of = [&](int e) { return may_leave(e, own_layer) ? costs_[index(e)] : kNever; };
    const bool is_new = refresh_order(/*is_due=*/false);
    std::vector<int> leaving = cheapest_run(order_, catalog().num_bytes(expert), cost_of);
    if (leaving.empty() && !is_new) {
        refresh_order(/*is_due=*/true);
        leaving = cheapest_run(order_, catalog().num_bytes(expert), cost_of);
    }
    return leaving;
}

std::vector<int> Residency::cheapest_run(std::vector<Candidate>& heap, std::int64_t num_bytes,
                                         const Places::Cost& cost_of) const {
    Places::Run best;
    std::vector<Candidate> tried;
    // A run of others costs more than the cheapest of them.
    while (!heap.empty() && heap.front().first < best.cost) {
        std::pop_heap(heap.begin(), heap.end(), std::greater<>());
        const Candidate candidate = heap.back();
        heap.pop_back();
        if (!is_resident(candidate.second)) continue;
        tried.push_back(candidate);
        if (cost_of(candidate.second) == kNever) continue;
        Places::Run run = places_.cheapest_run(candidate.second, num_bytes, cost_of);
        if (run.cost < best.cost) best = std::move(run);
    }
    for (const Candidate& candidate : tried) {
        heap.push_back(candidate);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
    return std::move(best.experts);
}

std::vector<int> Residency::cheapest_run(std::vector<Candidate> candidates, std::int64_t num_bytes) const {
    std::vector<double> costs(costs_.size(), kNever);
    for (const auto& [cost, expert] : candidates) costs[index(expert)] = cost;
    std::make_heap(candidates.begin(), candidates.end(), std::greater<>());
    return cheapest_run(candidates, num_bytes, [&](int e) { return costs[index(e)]; });
}

std::optional<std::vector<int>> Residency::cheapest_bytes(std::vector<Candidate> candidates,
                                                          std::int64_t num_bytes) const {
    std::sort(candidates.begin(), candidates.end());
    std::vector<int> leaving;
    for (auto next = candidates.begin(); num_bytes > 0 && next != candidates.end(); ++next) {
        leaving.push_back(next->second);
        num_bytes -= catalog().num_bytes(next->second);
    }
    if (num_bytes > 0) return std::nullopt;
    return leaving;
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
    order_ = rated(residents(/*with_pinned=*/true));
    std::fill(costs_.begin(), costs_.end(), kNever);
    for (const auto& [cost, expert] : order_) costs_[index(expert)] = cost;
    std::make_heap(order_.begin(), order_.end(), std::greater<>());
    order_clock_ = clock;
    return true;
}

std::vector<int> Residency::residents(bool with_pinned) const {
    std::vector<int> found;
    for (int e = 0; e < catalog().num_experts(); ++e) {
        if (is_resident_[index(e)] && (with_pinned || !is_pinned_[index(e)])) found.push_back(e);
    }
    return found;
}

std::vector<Residency::Candidate> Residency::rated(const std::vector<int>& candidates) const {
    const std::vector<double> worth = policy_.worth(statistics_, candidates);
    if (worth.size() != candidates.size()) {
        throw std::invalid_argument("an eviction policy must give one value for each candidate");
    }
    const int num_over = catalog().first_step() > 0 ? statistics_.num_over() : 0;
    const auto is_worthless = [&](std::size_t i) { return candidates[i] < num_over || worth[i] == -kNever; };
    double least = kNever;
    for (std::size_t i = 0; i < worth.size(); ++i) {
        if (!is_worthless(i)) least = std::min(least, worth[i]);
    }
    std::vector<Candidate> all;
    all.reserve(candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        const double cost = is_worthless(i) ? 0.0 : worth[i] - least;
        all.emplace_back(places_.contains(candidates[i]) ? cost : kLiesApart, candidates[i]);
    }
    return all;
}

}  // namespace edgemoe
