#include "experts/use_statistics.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace edgemoe {

Catalog::Catalog(std::vector<std::int64_t> num_bytes, std::vector<int> positions, int first_step)
    : num_bytes_(std::move(num_bytes)), positions_(std::move(positions)), first_step_(first_step) {
    if (num_bytes_.size() != positions_.size() || positions_.empty()) {
        throw std::invalid_argument("catalog: as many sizes as positions, one at least");
    }
    for (std::size_t i = 0; i < positions_.size(); ++i) {
        const int before = static_cast<int>(first_.size()) - 1;
        if (positions_[i] == before + 1) {
            first_.push_back(static_cast<int>(i));
        } else if (positions_[i] != before) {
            throw std::invalid_argument("catalog: positions do not ascend from 0 without gaps");
        }
    }
    first_.push_back(static_cast<int>(positions_.size()));
    if (first_step < 0 || first_step >= num_layers()) {
        throw std::invalid_argument("catalog: no layer runs at every step");
    }
}

UseStatistics::UseStatistics(Catalog catalog, double half_life_tokens)
    : catalog_(std::move(catalog)),
      keep_(std::pow(0.5, 1 / half_life_tokens)),
      frequency_(static_cast<std::size_t>(catalog_.num_experts())),
      expected_(frequency_.size()),
      last_use_(frequency_.size(), -1),
      until_(static_cast<std::size_t>(catalog_.num_layers())) {
    count_layers();
}

std::vector<int> UseStatistics::observe(int position, const std::int32_t* ids, std::int64_t num_tokens,
                                        std::int64_t top_k) {
    position_ = position;
    ++clock_;
    count_layers();
    const int first = catalog_.first(position);
    const double keep = std::pow(keep_, static_cast<double>(num_tokens));
    const double share = (1 - keep) / static_cast<double>(num_tokens);
    std::for_each(frequency_.begin() + first, frequency_.begin() + catalog_.first(position + 1),
                  [keep](double& frequency) { frequency *= keep; });
    std::vector<int> used;
    for (std::int64_t i = 0; i < num_tokens * top_k; ++i) {
        const auto expert = static_cast<std::size_t>(first + ids[i]);
        frequency_[expert] += share;
        if (last_use_[expert] != clock_) used.push_back(static_cast<int>(expert));
        last_use_[expert] = clock_;
    }
    std::sort(used.begin(), used.end());
    return used;
}

void UseStatistics::expect(int position, const float* uses) {
    const int first = catalog_.first(position), count = catalog_.first(position + 1) - first;
    std::transform(uses, uses + count, expected_.begin() + first,
                   [](float use) { return static_cast<double>(std::max(use, 0.0f)); });
}

int UseStatistics::layers_since(int expert) const {
    const int num_steps = catalog_.num_layers() - catalog_.first_step();
    const int since = (position_ - catalog_.position(expert)) % num_steps;
    return since < 0 ? since + num_steps : since;
}

int UseStatistics::num_over() const { return catalog_.first(std::min(position_, catalog_.first_step())); }

void UseStatistics::count_layers() {
    const int num_layers = catalog_.num_layers(), first_step = catalog_.first_step();
    const int num_steps = num_layers - first_step;
    for (int p = 0; p < num_layers; ++p) {
        int& until = until_[static_cast<std::size_t>(p)];
        if (position_ < first_step) {
            until = p > position_ ? p - position_ : num_layers;
        } else if (p < first_step) {
            until = num_layers;
        } else {
            until = p > position_ ? p - position_ : p - position_ + num_steps;
        }
    }
}

}  // namespace edgemoe
