#include "experts/expert_cache.h"

#include <algorithm>
#include <utility>

namespace edgemoe {
namespace {

std::size_t index(int expert) { return static_cast<std::size_t>(expert); }

}  // namespace

ExpertCache::ExpertCache(Residency& residency)
    : residency_(residency),
      holds_all_(residency.capacity_bytes() >= catalog().total_bytes()),
      arena_(std::min(residency.capacity_bytes(), catalog().total_bytes())),
      records_(index(catalog().num_experts())) {}

std::uint8_t* ExpertCache::reserve(int expert, bool is_demand) {
    const auto leaving = residency_.take(expert, is_demand);
    if (!leaving) return nullptr;
    for (const int victim : *leaving) forget(victim);
    const Places& places = residency_.places();
    if (places.contains(expert)) {
        records_[index(expert)] = arena_.at(places.offset(expert));
    } else {
        const auto& apart = apart_[expert] = map_apart(record_num_bytes(expert));
        records_[index(expert)] = apart.get();
    }
    give_back_holes();
    return record(expert);
}

void ExpertCache::release(int expert) {
    residency_.drop(expert);
    forget(expert);
    give_back_holes();
}

void ExpertCache::forget(int expert) {
    apart_.erase(expert);
    records_[index(expert)] = nullptr;
}

void ExpertCache::give_back_holes() {
    if (apart_.empty()) return;
    for (const auto& [offset, num_bytes] : residency_.places().holes()) arena_.give_back(offset, num_bytes);
}

}  // namespace edgemoe
