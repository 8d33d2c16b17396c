// Which resident expert leaves when another needs its place.
//
// A policy sees how experts have been used and says what each candidate is worth; the lowest leaves first. It
// is never asked about experts in use.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "experts/use_statistics.h"

namespace edgemoe {

class EvictionPolicy {
  public:
    // Whether worth also depends on which layer is running.
    explicit EvictionPolicy(bool depends_on_layer) : depends_on_layer_(depends_on_layer) {}
    virtual ~EvictionPolicy() = default;

    bool depends_on_layer() const { return depends_on_layer_; }
    // One value per candidate.
    virtual std::vector<double> worth(const UseStatistics& statistics,
                                      const std::vector<int>& candidates) const = 0;

  private:
    bool depends_on_layer_;
};

// What one expert is worth:
//   lru              its last use;
//   lfu              its frequency; of equals, the less recently used leaves first;
//   lfru             frequency over the tokens since the last use;
//   edgemoe          frequency over the layers until its layer runs next: the paper's prose (arXiv
//                    2308.14352, section III-C);
//   forecast         as edgemoe, with the mean of frequency and of the forecast for the next token in
//                    place of frequency; where nothing is forecast this is edgemoe;
//   edgemoe-printed  frequency over the layers since its layer ran: the paper's formula, which contradicts
//                    its prose. The printed denominator of the present layer is 0; it counts as the
//                    smallest, 1.
// Throws std::invalid_argument for other names.
std::unique_ptr<EvictionPolicy> make_policy(const std::string& name);

}  // namespace edgemoe
