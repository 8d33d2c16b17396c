// The expert cache: experts in memory, in slots of one arena of fixed size.
//
// No memory is taken after construction. An expert is absent, loading, or resident; one in use is pinned and
// never evicted.
#pragma once

#include <cstdint>
#include <vector>

#include "experts/arena.h"
#include "experts/residency.h"

namespace edgemoe {

// Experts by their number in the catalog. Used by one thread.
class ExpertCache {
  public:
    // Both outlive it. The residency counts what slots take; records may be smaller.
    ExpertCache(Residency& residency, SlotArena& arena, std::vector<std::int64_t> record_sizes);

    // The room for an absent expert's record, to load it into, evicting if need be; nullptr when too little
    // may leave.
    std::uint8_t* reserve(int expert, bool is_demand);
    // A loading expert has become resident.
    void admit(int expert) { residency_.admit(expert); }
    // A load that failed or was cancelled gives its room back.
    void release(int expert);

    // Loading or resident.
    bool has_room(int expert) const { return slot_of_[static_cast<std::size_t>(expert)] >= 0; }
    bool contains(int expert) const { return residency_.is_resident(expert); }
    // The record of an expert that is loading or resident.
    std::uint8_t* record(int expert) const { return arena_.data(slot_of_[static_cast<std::size_t>(expert)]); }
    std::int64_t record_num_bytes(int expert) const {
        return record_sizes_[static_cast<std::size_t>(expert)];
    }
    // Whether there is room for every expert: none will ever be evicted.
    bool holds_all() const { return holds_all_; }

    Residency& residency() { return residency_; }
    const Catalog& catalog() const { return residency_.catalog(); }

  private:
    void give_slot(int expert);

    Residency& residency_;
    SlotArena& arena_;
    std::vector<std::int64_t> record_sizes_;
    std::vector<int> slot_of_;  // -1 for what is absent
    bool holds_all_;
};

}  // namespace edgemoe
