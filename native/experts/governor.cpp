#include "experts/governor.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace edgemoe {
namespace {

// A turn counts at most this many times the median of both ways: more is mostly some other program's doing.
constexpr double kMostOfMedian = 1.5;

double median(std::vector<double> values) {
    const std::size_t half = values.size() / 2;
    std::sort(values.begin(), values.end());
    return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

struct Mean {
    double value;
    double variance;  // of the mean
};

// Of values that count at most so much.
Mean mean_of(const std::vector<double>& values, double most) {
    const auto count = static_cast<double>(values.size());
    double sum = 0, squares = 0;
    for (const double value : values) sum += std::min(value, most);
    const double mean = sum / count;
    for (const double value : values) squares += std::pow(std::min(value, most) - mean, 2);
    return {mean, squares / (count - 1) / count};
}

}  // namespace

Governor::Governor(int num_layers)
    : turn_layers_(kTurnTokens * num_layers),
      trial_layers_(kTrialTokens * num_layers),
      keep_layers_(kKeepTokens * num_layers),
      // At first there is little in the cache, and nothing to be learnt: the first trial comes when as many
      // tokens have passed as it has itself.
      count_(keep_layers_ - trial_layers_) {}

void Governor::layer_took(double elapsed_s) {
    ++count_;
    if (is_trial_) {
        turn_s_ += elapsed_s;
        if (count_ % turn_layers_ == 0) {
            (is_on_ ? on_s_ : off_s_).push_back(turn_s_);
            turn_s_ = 0;
            is_on_ = !is_on_;
        }
    }
    if (count_ < (is_trial_ ? trial_layers_ : keep_layers_)) return;
    if (is_trial_) is_on_ = kept_ = choose();
    on_s_.clear();
    off_s_.clear();
    is_trial_ = !is_trial_;
    count_ = 0;
}

bool Governor::choose() const {
    std::vector<double> all = on_s_;
    all.insert(all.end(), off_s_.begin(), off_s_.end());
    const double most = kMostOfMedian * median(std::move(all));
    const Mean on = mean_of(on_s_, most), off = mean_of(off_s_, most);
    const double slower_s = on.value - off.value;
    return std::abs(slower_s) > std::sqrt(on.variance + off.variance) ? slower_s < 0 : kept_;
}

}  // namespace edgemoe
