// Reading ahead: which forecast experts are worth starting to read now.
//
// A read on speculation pays when the time it hides, weighed by its probability, is more than the time it
// costs when it was wrong. On storage so slow that a read takes many times the time until the router speaks,
// almost nothing pays; and where almost everything is resident, a wasted read costs more than the others
// save. The governor measures both.
//
// There are two kinds of forecast: what the predictor makes of a layer's own state, and, while the layer
// waits for storage anyway, what the routers of the next layers make of it in a rehearsal with the experts
// that are in memory. The second is better, and comes later.
#pragma once

#include <array>
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
    // Beyond these, forecasts by rehearsal are no better than the predictor's.
    static constexpr int kMaxRehearsed = 3;

    struct Options {
        int top_k;                               // K
        std::vector<std::int64_t> record_sizes;  // bytes that reading an expert takes
        int max_rehearsed = kMaxRehearsed;       // layers, by one that waits
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
    bool begin_rehearsal(int distance) override;
    void end_rehearsal(int position, int distance, const std::vector<float>& scores) override;
    void abandon() noexcept override;

    // How the forecasts of one kind for single tokens held, by position.
    struct Record {
        std::int64_t num_forecasts = 0;
        // How many of the experts ranked r were chosen, r < 2 K.
        std::vector<std::int64_t> num_chosen;
    };
    // Of the predictor's (0), or of rehearsals by the layer so many layers before.
    std::vector<Record> records(int distance) const;

  private:
    // Experts by number, likeliest first, each with its probability.
    struct Ranking {
        std::vector<int> experts;
        std::vector<double> probabilities;
    };

    // One kind of forecast for the layer at a position.
    struct Kind {
        // Recent hit rate by rank, learnt while running: it holds for the present text.
        std::vector<double> confidence;
        std::vector<int> ranked;  // for a single token, until its router has spoken
        Record record;
    };
    // The predictor's, then those of rehearsals by the layer one before, two before ...
    using Kinds = std::array<Kind, 1 + kMaxRehearsed>;

    Ranking rank(const Forecast& forecast);
    // Nothing where a rehearsal, which knows more, has been there before.
    Ranking rank_for_token(const Forecast& forecast, int distance);
    Ranking rank_for_chunk(const Forecast& forecast) const;
    // Starts the reads of one layer's forecast that pay; returns the seconds of reads then queued.
    double start_paying(const Ranking& ranking, int distance, double until_s, double queued_s);
    // Drops reads for a layer that have not started and are not of the K likeliest, so that those go first.
    void drop_unlikely(int position, const Ranking& ranking);
    // Compares a forecast of a single token with what was chosen.
    void learn(Kind& kind, const std::vector<int>& chosen) const;
    // Ends all forecasts of a layer.
    void release(Kinds& kinds);
    // Keeps the K likeliest of a ranking from leaving, or lets them go.
    void reserve(const std::vector<int>& ranked, bool is_reserved);

    Residency& residency_;
    Reads& reads_;
    Predictor& predictor_;
    LayerPace& pace_;
    Options options_;
    Governor governor_;
    double typical_read_s_;
    std::vector<Kinds> kinds_;               // by position
    std::vector<std::vector<int>> started_;  // reads on speculation, by position
    double rehearsal_s_ = 0;                 // what one takes, a running mean
    double rehearsal_began_s_ = 0;           // since the router spoke
    double all_rehearsals_s_ = 0;
    std::int64_t num_reads_ = 0, wasted_bytes_ = 0;
};

// Whether starting a read of `read_s` is expected to save time.
//
// If right it hides the part that fits into the time until it is needed; if wrong, the rest of it holds up
// the reads that are needed then, and what it took of the processor (`handling_s`) was in vain.
bool pays(double probability, double read_s, double until_needed_s, double handling_s);

}  // namespace edgemoe
