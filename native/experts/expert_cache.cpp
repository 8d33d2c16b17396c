#include "experts/expert_cache.h"

#include <stdexcept>
#include <utility>

namespace edgemoe {
namespace {

std::size_t index(int expert) { return static_cast<std::size_t>(expert); }

}  // namespace

ExpertCache::ExpertCache(Residency& residency, SlotArena& arena, std::vector<std::int64_t> record_sizes)
    : residency_(residency),
      arena_(arena),
      record_sizes_(std::move(record_sizes)),
      slot_of_(record_sizes_.size(), -1) {
    if (static_cast<int>(record_sizes_.size()) != catalog().num_experts()) {
        throw std::invalid_argument("cache: as many sizes of records as experts");
    }
    std::int64_t all_bytes = 0;
    for (int expert = 0; expert < catalog().num_experts(); ++expert) all_bytes += catalog().num_bytes(expert);
    holds_all_ = residency.capacity_bytes() >= all_bytes;
}

std::uint8_t* ExpertCache::reserve(int expert, bool is_demand) {
    const auto leaving = residency_.take(expert, is_demand);
    if (!leaving) return nullptr;
    for (const int victim : *leaving) give_slot(victim);
    slot_of_[index(expert)] = arena_.take(record_num_bytes(expert));
    return record(expert);
}

void ExpertCache::release(int expert) {
    residency_.drop(expert);
    give_slot(expert);
}

void ExpertCache::give_slot(int expert) { arena_.give(std::exchange(slot_of_[index(expert)], -1)); }

}  // namespace edgemoe
