#include "experts/policies.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

namespace edgemoe {
namespace {

using Formula = double (*)(const UseStatistics& statistics, int expert);

// Of two experts never used, what decides is the distance to their layers.
constexpr double kLeastUse = 1e-6;

double lru(const UseStatistics& s, int expert) { return static_cast<double>(s.last_use(expert)); }

double lfu(const UseStatistics& s, int expert) {
    const double recency = static_cast<double>(s.last_use(expert)) / static_cast<double>(s.clock() + 1);
    return s.frequency(expert) + 1e-9 * recency;
}

double lfru(const UseStatistics& s, int expert) {
    const double age = static_cast<double>(s.clock() - s.last_use(expert)) / s.catalog().num_layers();
    return (s.frequency(expert) + kLeastUse) / (1 + age);
}

double edgemoe(const UseStatistics& s, int expert) {
    return (s.frequency(expert) + kLeastUse) / s.layers_until(expert);
}

double forecast(const UseStatistics& s, int expert) {
    return (s.frequency(expert) + s.expected(expert) + kLeastUse) / s.layers_until(expert);
}

double edgemoe_printed(const UseStatistics& s, int expert) {
    return (s.frequency(expert) + kLeastUse) / std::max(s.layers_since(expert), 1);
}

class FormulaPolicy : public EvictionPolicy {
  public:
    FormulaPolicy(bool depends_on_layer, Formula formula)
        : EvictionPolicy(depends_on_layer), formula_(formula) {}

    std::vector<double> worth(const UseStatistics& statistics,
                              const std::vector<int>& candidates) const override {
        std::vector<double> values(candidates.size());
        std::transform(candidates.begin(), candidates.end(), values.begin(),
                       [&](int expert) { return formula_(statistics, expert); });
        return values;
    }

  private:
    Formula formula_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_policy(const std::string& name) {
    static const std::map<std::string, std::pair<bool, Formula>> formulas = {
        {"lru", {false, lru}},          {"lfu", {false, lfu}},
        {"lfru", {false, lfru}},        {"edgemoe", {true, edgemoe}},
        {"forecast", {true, forecast}}, {"edgemoe-printed", {true, edgemoe_printed}},
    };
    const auto found = formulas.find(name);
    if (found == formulas.end()) throw std::invalid_argument("no eviction policy " + name);
    return std::make_unique<FormulaPolicy>(found->second.first, found->second.second);
}

}  // namespace edgemoe
