// How long a layer computes for each token (a running mean), and how fast storage delivers.
#pragma once

#include <cstdint>
#include <functional>

namespace edgemoe {

class LayerPace {
  public:
    // Seconds since some moment.
    using Clock = std::function<double()>;

    // Storage delivers so much, each read after a latency, and takes the processor so long for each. Without
    // a clock that of the machine counts.
    LayerPace(double bytes_per_s, double latency_s, double handling_s, Clock clock = {});

    // A router has spoken; `waited_s` is all the time spent waiting for reads until now.
    void layer_begins(std::int64_t num_tokens, double waited_s);

    // Since layer_begins().
    double elapsed_s() const { return clock_() - began_s_; }
    // From the router before to this one, waiting included; 0: unknown.
    double last_layer_s() const { return last_layer_s_; }
    // From one router to the next without waiting.
    double layer_s(std::int64_t num_tokens) const;
    // Seconds that one read alone takes.
    double read_s(std::int64_t num_bytes) const { return latency_s_ + transfer_s(num_bytes); }
    // Seconds that a queued read adds to those before it.
    double transfer_s(std::int64_t num_bytes) const { return static_cast<double>(num_bytes) / bytes_per_s_; }
    // Seconds of the processor for one read: to start it and to take it in.
    double handling_s() const { return handling_s_; }

  private:
    double bytes_per_s_, latency_s_, handling_s_;
    Clock clock_;
    // Per row, where one runs alone, which reads weights for itself, and where several do, which share them.
    double alone_layer_s_, shared_layer_s_;
    double began_s_ = 0, waited_s_ = 0;
    std::int64_t num_tokens_ = 0;
    double last_layer_s_ = 0;
};

}  // namespace edgemoe
