// Which experts are in memory and where, and who leaves for whom. Bookkeeping only: the expert cache adds
// memory to it, the simulation none.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "experts/places.h"
#include "experts/policies.h"
#include "experts/use_statistics.h"

namespace edgemoe {

// At most `capacity_bytes` of experts, loading or resident. Used by one thread.
//
// An expert in use is pinned and never leaves. One that is expected soon is reserved: it leaves only for an
// expert that is needed now. A layer keeps `floor_share` of an even share against other layers. What an
// encoder has done with leaves first, whatever the policy.
//
// Experts differ in size and no record moves, so those leave whose bytes are one range with the holes beside
// them, and which are worth least together. An expert that is needed now comes in any case: if bytes are
// free, but in pieces between experts that may not leave, it lies apart.
class Residency {
  public:
    // Policy and statistics outlive it.
    Residency(const UseStatistics& statistics, const EvictionPolicy& policy, std::int64_t capacity_bytes,
              double floor_share);

    // Whether an absent expert would come without any leaving.
    bool has_room(int expert) const;
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
    // Where experts lie that are loading or resident; one that it does not contain lies apart.
    const Places& places() const { return places_; }
    bool is_resident(int expert) const { return is_resident_[static_cast<std::size_t>(expert)]; }
    int num_resident() const;
    // Truth values by expert.
    std::vector<std::uint8_t>& is_resident() { return is_resident_; }

  private:
    // (cost, expert). The cost is the policy's worth, from the least of all candidates on; what is worth
    // nothing costs nothing, and what lies apart leaves before all others.
    using Candidate = std::pair<double, int>;

    std::optional<std::vector<int>> choose(int expert, bool is_demand);
    // The cheapest neighbours that are enough and may leave for the expert; none where there are none.
    std::vector<int> cheapest(int expert);
    // The cheapest neighbours of the candidates that are enough.
    std::vector<int> cheapest_run(std::vector<Candidate> candidates, std::int64_t num_bytes) const;
    // Likewise, by a heap with the cheapest on top, which loses those that have left.
    std::vector<int> cheapest_run(std::vector<Candidate>& heap, std::int64_t num_bytes,
                                  const Places::Cost& cost_of) const;
    // The cheapest that have so many bytes together, wherever they lie; nothing if all do not.
    std::optional<std::vector<int>> cheapest_bytes(std::vector<Candidate> candidates,
                                                   std::int64_t num_bytes) const;
    // Orders the residents by cost, unless that was done not long ago; true if done now.
    bool refresh_order(bool is_due);
    std::vector<Candidate> rated(const std::vector<int>& candidates) const;
    std::vector<int> residents(bool with_pinned) const;
    bool may_leave(int victim, int for_layer) const;

    const UseStatistics& statistics_;
    const EvictionPolicy& policy_;
    std::int64_t capacity_bytes_;
    std::int64_t floor_bytes_;
    std::int64_t used_bytes_ = 0;
    int num_apart_ = 0;
    std::vector<std::int64_t> layer_bytes_;
    std::vector<std::uint8_t> is_resident_, is_pinned_, is_reserved_;
    Places places_;
    // A heap with the cheapest on top. Worth changes little from layer to layer.
    std::vector<Candidate> order_;
    std::vector<double> costs_;                // of what is in the order, by expert; infinite for others
    std::optional<std::int64_t> order_clock_;  // when it was made
};

}  // namespace edgemoe
