// Experts streamed from storage, one layer at a time.
//
// Resident experts of a layer are computed while missing ones are read; a missing one is computed as it
// arrives; meanwhile the next layers' experts are read ahead, for which those layers may be rehearsed, or,
// where there is room for all, the experts that are still absent. Outputs are summed in a fixed order, so
// that what was resident never changes a result.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "experts/expert_cache.h"
#include "experts/gate.h"
#include "experts/layer_output.h"
#include "experts/loads.h"
#include "experts/record.h"

namespace edgemoe {

// What the experts of a layer would get, and what its router makes of a single token. Letters: D width of
// what experts get and give; a router may see something wider.
struct Rehearsed {
    std::vector<float> x;           // [D]
    std::vector<float> scores;      // [E]
    std::vector<std::int32_t> ids;  // [K], those of the highest scores
    std::vector<float> weights;     // [K]
};

// Takes a token's state on to the router of the next layer that has experts, and by every further call on to
// the one after it, given what the experts of the layer before add to the state, [D], as far as they are
// there: the better part of what a router sees is there before the last of them has come. None after the
// last layer.
using Rehearsal = std::function<std::optional<Rehearsed>(const float* added)>;

// Reading ahead, as far as a layer sees it.
class Ahead {
  public:
    virtual ~Ahead() = default;
    // The router at `position` has spoken: what it did not ask for (`chosen`, ascending) is dropped. Returns
    // what was read ahead for it rightly.
    virtual std::vector<int> settle(int position, std::int64_t num_tokens,
                                    const std::vector<int>& chosen) = 0;
    // All reads that the layer needs are queued: those that pay may follow, to begin with them.
    virtual void start(int position, const Routed& routed) = 0;
    // The layer is about to wait for what it needs. Whether there is time to rehearse one more layer, the
    // `distance`th after it; if so, it begins now.
    virtual bool begin_rehearsal(int distance) = 0;
    // It has ended, and gave scores [E]; reads that pay are queued.
    virtual void end_rehearsal(int position, int distance, const std::vector<float>& scores) = 0;
    // After an error: no read is under way any more, and nothing is expected.
    virtual void abandon() noexcept = 0;
};

// One layer's experts are about to run. Experts by their number in the catalog.
struct LayerEvent {
    const std::vector<int>& hits;
    const std::vector<int>& misses;
    const std::vector<int>& preloaded;  // of both: what was read ahead for this layer
};

class ExpertStream {
  public:
    struct Layer {
        Activation activation;
        const float* biases;     // of all experts, one after the other, as expert_ffn takes them; or nullptr
        const Matrix* next_use;  // the head that forecasts the next token's choice, or nullptr
    };
    struct Options {
        bool swaps_layers;  // every expert of a layer is read, chosen or not: the baseline to be beaten
        // Called after every wait for storage; what it throws ends the run.
        std::function<void()> has_waited;
    };

    // Statistics, cache and loads outlive it. `layouts` by expert, `layers` by position.
    ExpertStream(UseStatistics& statistics, ExpertCache& cache, Loads& loads,
                 std::vector<RecordLayout> layouts, std::vector<Layer> layers, Options options);

    // out [T][D] is the weighted sum of what the chosen experts make of `inputs` [T][D], which may be what
    // the router saw. After an error nothing is under way and nothing is pinned. `ahead`, `rehearsal` (of a
    // single token) and `observe` may be missing; without `ahead` nothing is read but on demand.
    void run(int position, const Routed& routed, const float* inputs, float* out, Ahead* ahead,
             const Rehearsal& rehearsal, const std::function<void(const LayerEvent&)>& observe);

    const Catalog& catalog() const { return cache_.catalog(); }
    // D of the layer at a position.
    std::int64_t width(int position) const {
        return layouts_[static_cast<std::size_t>(catalog().first(position))].width;
    }
    // Columns of the head that forecasts the next use at a position; 0 where there is none.
    std::int64_t forecast_width(int position) const {
        const Matrix* const head = layers_[static_cast<std::size_t>(position)].next_use;
        return head == nullptr ? 0 : head->cols;
    }
    std::int64_t num_hits() const { return num_hits_; }
    // Not resident when the router spoke, those still being read ahead included.
    std::int64_t num_misses() const { return num_misses_; }

  private:
    class Arriving;

    void run_layer(int position, const Routed& routed, const float* inputs, float* out, Ahead* ahead,
                   const Rehearsal& rehearsal, const std::function<void(const LayerEvent&)>& observe);
    // Where all experts fit: when storage is idle, queues the next absent one. Each is tried once.
    void fill();
    // While the layer waits for experts, the layers after it are rehearsed with those that are in memory.
    void rehearse(int position, const ExpertLayerOutput& output, Ahead& ahead, const Rehearsal& rehearsal);
    // Throws where a rehearsal gave what no layer at this position can.
    void check(int position, const Rehearsed& seen) const;
    // Adds resident experts to the output.
    void add(ExpertLayerOutput& output, const std::vector<int>& experts);
    // Adds pinned experts to the output and unpins them.
    void compute(ExpertLayerOutput& output, const std::vector<int>& experts, Arriving& arriving);

    UseStatistics& statistics_;
    ExpertCache& cache_;
    Loads& loads_;
    std::vector<RecordLayout> layouts_;
    std::vector<Layer> layers_;
    Options options_;
    int next_to_fill_ = 0;
    std::int64_t num_hits_ = 0;
    std::int64_t num_misses_ = 0;
};

}  // namespace edgemoe
