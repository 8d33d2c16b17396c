// The expert cache: experts in memory, in an arena of fixed size.
//
// No more memory is taken than at construction. An expert is absent, loading, or resident; one in use is
// pinned and never evicted.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "platform/mapping.h"
#include "experts/arena.h"
#include "experts/residency.h"

namespace edgemoe {

// Experts by their number in the catalog. Used by one thread.
class ExpertCache {
  public:
    // The residency outlives it, and nobody else takes room in it.
    explicit ExpertCache(Residency& residency);

    // The room for an absent expert's record, to load it into, evicting if need be; nullptr when too little
    // may leave.
    std::uint8_t* reserve(int expert, bool is_demand);
    // A loading expert has become resident.
    void admit(int expert) { residency_.admit(expert); }
    // A load that failed or was cancelled gives its room back.
    void release(int expert);

    // Loading or resident.
    bool has_room(int expert) const { return record(expert) != nullptr; }
    bool contains(int expert) const { return residency_.is_resident(expert); }
    // The record of an expert that is loading or resident; nullptr of another.
    std::uint8_t* record(int expert) const { return records_[static_cast<std::size_t>(expert)]; }
    std::int64_t record_num_bytes(int expert) const { return catalog().num_bytes(expert); }
    // Whether there is room for every expert: none will ever be evicted.
    bool holds_all() const { return holds_all_; }

    Residency& residency() { return residency_; }
    const Catalog& catalog() const { return residency_.catalog(); }

  private:
    void forget(int expert);
    // While records lie apart, holes hold no pages: what is in memory is what experts take.
    void give_back_holes();

    Residency& residency_;
    bool holds_all_;
    Arena arena_;
    std::map<int, Mapping> apart_;
    std::vector<std::uint8_t*> records_;
};

}  // namespace edgemoe
