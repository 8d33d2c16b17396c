// Which experts are in memory, counted in bytes, and who leaves for whom. Bookkeeping only: the expert cache
// adds buffers to it, the simulation none.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "experts/policies.h"
#include "experts/use_statistics.h"

namespace edgemoe {

// At most `capacity_bytes` of experts, loading or resident. Used by one thread.
//
// An expert in use is pinned and never leaves. One that is expected soon is reserved: it leaves only for an
// expert that is needed now. A layer keeps `floor_share` of an even share against other layers. What an
// encoder has done with leaves first, whatever the policy.
class Residency {
  public:
    // Policy and statistics outlive it.
    Residency(const UseStatistics& statistics, const EvictionPolicy& policy, std::int64_t capacity_bytes,
              double floor_share);

    // Makes room for an expert that is about to load: the experts that leave for it. None, and nothing
    // leaves, if there is not room enough beside those pinned (and, unless it is a demand, those reserved).
    std::optional<std::vector<int>> take(int expert, bool is_demand);
    // An expert that was loading, or is resident, gives its bytes back.
    void drop(int expert);
    // An expert has loaded.
    void admit(int expert);

    // Those of the experts that are not resident.
    std::vector<int> missing(const std::vector<int>& experts) const;
    void pin(const std::vector<int>& experts, bool is_pinned);
    void unpin_all();
    void reserve(const std::vector<int>& experts, bool is_reserved);

    const Catalog& catalog() const { return statistics_.catalog(); }
    std::int64_t capacity_bytes() const { return capacity_bytes_; }
    // Bytes of experts loading or resident.
    std::int64_t used_bytes() const { return used_bytes_; }
    bool is_resident(int expert) const { return is_resident_[static_cast<std::size_t>(expert)]; }
    int num_resident() const;
    // Truth values by expert.
    std::vector<std::uint8_t>& residents() { return is_resident_; }

  private:
    // (worth, expert): the least is the first to leave; of equals the one with the lower number.
    using Candidate = std::pair<double, int>;

    std::optional<std::vector<int>> choose(std::int64_t missing_bytes, int expert, bool is_demand);
    // Experts worth least whose bytes are enough together; none if all are not enough.
    std::optional<std::vector<int>> cheapest(std::int64_t missing_bytes, int expert);
    // Takes experts off the order until they free enough, and how much they do.
    std::pair<std::vector<int>, std::int64_t> pop(std::int64_t missing_bytes, int expert);
    // Orders the residents by worth, unless that was done not long ago; true if done now.
    bool refresh_order(bool is_due);
    std::vector<Candidate> rated(const std::vector<int>& candidates) const;
    bool may_leave(int victim, int for_layer) const;

    const UseStatistics& statistics_;
    const EvictionPolicy& policy_;
    std::int64_t capacity_bytes_;
    std::int64_t floor_bytes_;
    std::int64_t used_bytes_ = 0;
    std::vector<std::int64_t> layer_bytes_;
    std::vector<std::uint8_t> is_resident_, is_pinned_, is_reserved_;
    // A heap with the cheapest on top. Worth changes little from layer to layer.
    std::vector<Candidate> order_;
    std::optional<std::int64_t> order_clock_;  // when it was made
};

}  // namespace edgemoe
