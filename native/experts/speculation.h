// Reading ahead: which forecast experts are worth starting to read now.
//
// A read on speculation pays when the time it hides, weighed by its probability, is more than the time it
// costs when it was wrong. On storage so slow that a read takes many times the time until the router speaks,
// almost nothing pays; and where almost everything is resident, a read in vain costs more than the others
// save. The governor notices.
#pragma once

#include <cstdint>
#include <vector>

#include "experts/governor.h"
#include "experts/layer_pace.h"
#include "experts/predictors.h"
#include "experts/reads.h"
#include "experts/residency.h"
#include "experts/stream.h"

namespace edgemoe {

// Starts reads of forecast experts and learns how far forecasts can be trusted. Used by one thread.
class Speculation : public Ahead {
  public:
    struct Options {
        int top_k;                               // K
        std::vector<std::int64_t> record_sizes;  // bytes that reading an expert takes
    };

    // All outlive it.
    Speculation(Residency& residency, Reads& reads, Predictor& predictor, LayerPace& pace, Options options);

    // False while single tokens were faster without, and while they are timed without.
    bool is_on() const { return governor_.is_on(); }
    // Started so far.
    std::int64_t num_reads() const { return num_reads_; }
    // Read for a layer that chose otherwise.
    std::int64_t wasted_bytes() const { return wasted_bytes_; }
    const Catalog& catalog() const { return residency_.catalog(); }

    std::vector<int> settle(int position, std::int64_t num_tokens, const std::vector<int>& chosen) override;
    void start(int position, const Routed& routed) override;

  private:
    // Experts by number, likeliest first, each with its probability.
    struct Ranking {
        std::vector<int> experts;
        std::vector<double> probabilities;
    };

    Ranking rank(const Forecast& forecast);
    Ranking rank_for_token(const Forecast& forecast);
    Ranking rank_for_chunk(const Forecast& forecast) const;
    // Starts the reads of one layer's forecast that pay; returns the seconds of reads then queued.
    double start_paying(const Ranking& ranking, int distance, double until_s, double queued_s);
    // Keeps the K likeliest of a ranking from leaving, or lets them go.
    void reserve(const std::vector<int>& ranked, bool is_reserved);

    Residency& residency_;
    Reads& reads_;
    Predictor& predictor_;
    LayerPace& pace_;
    Options options_;
    Governor governor_;
    double typical_read_s_;
    // By position. How often the expert ranked r was chosen: no calibration that another text could belie.
    std::vector<std::vector<double>> confidence_;
    std::vector<std::vector<int>> ranked_;   // what was forecast for a single token
    std::vector<std::vector<int>> started_;  // reads on speculation
    std::int64_t num_reads_ = 0, wasted_bytes_ = 0;
};

// Whether starting a read of `read_s` is expected to save time.
//
// If right it hides the part that fits into the time until it is needed; if wrong, the rest of it holds up
// the reads that are needed then, and what it took of the processor (`handling_s`) was in vain.
bool pays(double probability, double read_s, double until_needed_s, double handling_s);

}  // namespace edgemoe
