#include "experts/layer_pace.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace edgemoe {
namespace {

// What is believed of the time between two layers before it is measured.
constexpr double kUnknownLayerS = 1e-3;
// Weight of the newest observation in the means.
constexpr double kNewest = 0.05;
// One long gap, such as a user who thinks, counts at most so many times the mean.
constexpr double kMostOfMean = 4;

double machine_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

LayerPace::LayerPace(double bytes_per_s, double latency_s, double handling_s, Clock clock)
    : bytes_per_s_(bytes_per_s),
      latency_s_(latency_s),
      handling_s_(handling_s),
      clock_(clock ? std::move(clock) : machine_s),
      alone_layer_s_(kUnknownLayerS),
      shared_layer_s_(kUnknownLayerS) {}

void LayerPace::layer_begins(std::int64_t num_tokens, double waited_s) {
    const double now = clock_();
    last_layer_s_ = 0;
    if (num_tokens_ == num_tokens) {
        last_layer_s_ = now - began_s_;
        const double computed_s = (last_layer_s_ - (waited_s - waited_s_)) / static_cast<double>(num_tokens);
        double& mean_s = num_tokens == 1 ? alone_layer_s_ : shared_layer_s_;
        mean_s += kNewest * (std::min(computed_s, kMostOfMean * mean_s) - mean_s);
    }
    began_s_ = now;
    waited_s_ = waited_s;
    num_tokens_ = num_tokens;
}

double LayerPace::layer_s(std::int64_t num_tokens) const {
    return num_tokens == 1 ? alone_layer_s_ : shared_layer_s_ * static_cast<double>(num_tokens);
}

}  // namespace edgemoe
