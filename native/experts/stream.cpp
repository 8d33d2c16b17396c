#include "experts/stream.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace edgemoe {

// One layer's missing experts: read as many at a time as there is room for. The first are queued from the
// beginning.
class ExpertStream::Arriving {
  public:
    Arriving(Loads& loads, const std::vector<int>& experts) : loads_(loads) {
        for (const int expert : experts) {
            if (loads.contains(expert)) {
                loads.demand(expert);
                expected_.push_back(expert);
            } else {
                waiting_.push_back(expert);
            }
        }
        std::reverse(waiting_.begin(), waiting_.end());
        queue();
    }

    // Every missing expert is being read.
    bool is_complete() const { return waiting_.empty(); }

    // Some are being read.
    bool is_expecting() const { return !expected_.empty(); }

    // Demands experts while there is room.
    void start() {
        queue();
        loads_.begin();
    }

    // The next experts to be computed, resident by now; none when all have been.
    std::vector<int> wait() {
        while (!waiting_.empty() && expected_.empty()) {
            // All room is taken by reads on speculation: they must end or be dropped first.
            loads_.make_room();
            start();
        }
        if (expected_.empty()) return {};
        std::vector<int> arrived = loads_.wait(expected_);
        std::erase_if(expected_, [&](int expert) {
            return std::find(arrived.begin(), arrived.end(), expert) != arrived.end();
        });
        return arrived;
    }

  private:
    void queue() {
        while (!waiting_.empty() && loads_.start(waiting_.back(), Loads::kDemand)) {
            expected_.push_back(waiting_.back());
            waiting_.pop_back();
        }
    }

    Loads& loads_;
    std::vector<int> waiting_;
    std::vector<int> expected_;
};

ExpertStream::ExpertStream(UseStatistics& statistics, ExpertCache& cache, Loads& loads,
                           std::vector<RecordLayout> layouts, std::vector<Layer> layers, Options options)
    : statistics_(statistics),
      cache_(cache),
      loads_(loads),
      layouts_(std::move(layouts)),
      layers_(std::move(layers)),
      options_(std::move(options)) {
    const Catalog& catalog = cache.catalog();
    if (static_cast<int>(layouts_.size()) != catalog.num_experts() ||
        static_cast<int>(layers_.size()) != catalog.num_layers()) {
        throw std::invalid_argument("stream: one layout for each expert, and one entry for each layer");
    }
    for (int expert = 0; expert < catalog.num_experts(); ++expert) {
        const RecordLayout& layout = layouts_[static_cast<std::size_t>(expert)];
        // A rehearsal takes one state through all of them.
        if (layout.width != layouts_.front().width) {
            throw std::invalid_argument("stream: experts of unlike widths");
        }
        // Experts of a layer are computed together, with one scratch buffer each for the rows of up.
        const auto first = static_cast<std::size_t>(catalog.first(catalog.position(expert)));
        if (layout.has_gate != layouts_[first].has_gate ||
            layout.expert_width != layouts_[first].expert_width) {
            throw std::invalid_argument("stream: experts of one layer with unlike matrices");
        }
    }
}

void ExpertStream::run(int position, const Routed& routed, const float* inputs, float* out, Ahead* ahead,
                       const Rehearsal& rehearsal, const std::function<void(const LayerEvent&)>& observe) {
    try {
        run_layer(position, routed, inputs, out, ahead, rehearsal, observe);
    } catch (...) {
        loads_.abandon();
        if (ahead != nullptr) ahead->abandon();
        cache_.residency().unpin_all();
        throw;
    }
}

void ExpertStream::run_layer(int position, const Routed& routed, const float* inputs, float* out,
                             Ahead* ahead, const Rehearsal& rehearsal,
                             const std::function<void(const LayerEvent&)>& observe) {
    const Catalog& catalog = cache_.catalog();
    Residency& residency = cache_.residency();
    const Layer& layer = layers_[static_cast<std::size_t>(position)];
    const std::vector<int> chosen =
        statistics_.observe(position, routed.ids, routed.num_tokens, routed.top_k);
    if (layer.next_use != nullptr && !cache_.holds_all()) {
        expect_next_use(statistics_, position, routed, *layer.next_use);
    }
    loads_.poll();
    std::vector<int> wanted = chosen;
    if (options_.swaps_layers) {
        wanted.resize(static_cast<std::size_t>(catalog.first(position + 1) - catalog.first(position)));
        std::iota(wanted.begin(), wanted.end(), catalog.first(position));
    }
    const std::vector<int> misses = residency.missing(wanted);
    const bool fills = ahead != nullptr && cache_.holds_all();
    std::vector<int> preloaded;
    if (ahead != nullptr) preloaded = ahead->settle(position, routed.num_tokens, chosen);
    // What is in memory is there for good: nothing to forecast.
    if (cache_.holds_all() && misses.empty()) ahead = nullptr;
    std::vector<int> hits;
    std::set_difference(chosen.begin(), chosen.end(), misses.begin(), misses.end(), std::back_inserter(hits));
    num_hits_ += static_cast<std::int64_t>(hits.size());
    num_misses_ += static_cast<std::int64_t>(misses.size());
    if (observe) observe({hits, misses, preloaded});
    residency.pin(hits, true);
    Arriving arriving(loads_, misses);
    // Else there is no room for more than what is needed now.
    if (ahead != nullptr && arriving.is_complete()) ahead->start(position, routed);
    if (fills) fill();
    loads_.begin();
    Routed given = routed;
    given.x = inputs;
    given.width = width(position);
    ExpertLayerOutput output(given, layer.activation);
    compute(output, hits, arriving);
    if (ahead != nullptr && rehearsal && arriving.is_complete() && arriving.is_expecting()) {
        rehearse(position, output, *ahead, rehearsal);
    }
    for (std::vector<int> arrived = arriving.wait(); !arrived.empty(); arrived = arriving.wait()) {
        options_.has_waited();
        // All are chosen, but for those that swapping reads besides.
        std::erase_if(arrived, [&](int e) { return !std::binary_search(chosen.begin(), chosen.end(), e); });
        residency.pin(arrived, true);
        compute(output, arrived, arriving);
        arriving.start();
    }
    output.combine(out);
}

void ExpertStream::fill() {
    const int num_experts = catalog().num_experts();
    while (next_to_fill_ < num_experts && cache_.has_room(next_to_fill_)) ++next_to_fill_;
    if (next_to_fill_ == num_experts || loads_.pending_bytes() > 0) return;
    loads_.start(next_to_fill_++, /*priority=*/catalog().num_layers());  // after all that is forecast
}

void ExpertStream::rehearse(int position, const ExpertLayerOutput& output, Ahead& ahead,
                            const Rehearsal& rehearsal) {
    std::vector<float> added(static_cast<std::size_t>(width(position)));
    output.combine_added(added.data());
    std::optional<Rehearsed> seen;
    for (int next = position + 1; next < catalog().num_layers(); ++next) {
        if (!ahead.begin_rehearsal(next - position)) return;
        if (seen) {
            const Routed routed = {seen->x.data(),      seen->ids.data(),     seen->weights.data(), 1,
                                   std::ssize(seen->x), std::ssize(seen->ids)};
            ExpertLayerOutput there(routed, layers_[static_cast<std::size_t>(next - 1)].activation);
            std::vector<int> resident;
            for (const std::int32_t id : seen->ids) resident.push_back(catalog().first(next - 1) + id);
            std::erase_if(resident, [this](int e) { return !cache_.residency().is_resident(e); });
            add(there, resident);
            there.combine_added(added.data());
        }
        seen = rehearsal(added.data());
        if (!seen) return;
        check(next, *seen);
        ahead.end_rehearsal(next, next - position, seen->scores);
        loads_.begin();
    }
}

void ExpertStream::check(int position, const Rehearsed& seen) const {
    const int num_experts = catalog().first(position + 1) - catalog().first(position);
    const bool fits = std::ssize(seen.x) == width(position) && std::ssize(seen.scores) == num_experts &&
                      seen.ids.size() == seen.weights.size() &&
                      std::all_of(seen.ids.begin(), seen.ids.end(),
                                  [=](std::int32_t id) { return id >= 0 && id < num_experts; });
    if (!fits) throw std::invalid_argument("stream: a rehearsal does not fit the layer it is of");
}

void ExpertStream::add(ExpertLayerOutput& output, const std::vector<int>& experts) {
    std::vector<int> numbers;
    std::vector<ExpertMatrices> matrices;
    for (const int expert : experts) {
        const int position = catalog().position(expert);
        const RecordLayout& layout = layouts_[static_cast<std::size_t>(expert)];
        numbers.push_back(expert - catalog().first(position));
        matrices.push_back(layout.matrices(cache_.record(expert)));
        const float* const biases = layers_[static_cast<std::size_t>(position)].biases;
        if (biases != nullptr) matrices.back().biases = biases + numbers.back() * layout.num_biases();
    }
    output.add(numbers, matrices);
}

void ExpertStream::compute(ExpertLayerOutput& output, const std::vector<int>& experts, Arriving& arriving) {
    Residency& residency = cache_.residency();
    if (arriving.is_complete()) {
        add(output, experts);
        residency.pin(experts, false);
        return;
    }
    for (const int expert : experts) {
        add(output, {expert});
        residency.pin({expert}, false);
        arriving.start();  // room for the next read comes with every expert that is done
    }
}

}  // namespace edgemoe
