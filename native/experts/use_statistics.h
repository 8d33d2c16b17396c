// All routed experts of a model by number, and how they have been used: what eviction is decided by.
//
// Experts are numbered by layer, then by expert. Only layers that have experts count; a layer's position is
// its place among those. Letters: N experts in all, S layers, T tokens, K chosen.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

namespace edgemoe {

class Catalog {
  public:
    // For each expert the size of its record and its layer's position, ascending from 0 without gaps. Layers
    // from the position `first_step` on run at every step, an encoder's before them once for a prompt.
    Catalog(std::vector<std::int64_t> num_bytes, std::vector<int> positions, int first_step);

    int num_experts() const { return static_cast<int>(num_bytes_.size()); }
    int num_layers() const { return static_cast<int>(first_.size()) - 1; }
    int first_step() const { return first_step_; }
    std::int64_t num_bytes(int expert) const { return num_bytes_[static_cast<std::size_t>(expert)]; }
    const std::vector<std::int64_t>& record_sizes() const { return num_bytes_; }
    // Of all experts.
    std::int64_t total_bytes() const { return std::reduce(num_bytes_.begin(), num_bytes_.end()); }
    int position(int expert) const { return positions_[static_cast<std::size_t>(expert)]; }
    // The number of a layer's first expert; of the layer after the last: N.
    int first(int position) const { return first_[static_cast<std::size_t>(position)]; }

  private:
    std::vector<std::int64_t> num_bytes_;
    std::vector<int> positions_;
    std::vector<int> first_;
    int first_step_;
};

// How often and when each expert was used, and which layer is running. Adapts to the text.
class UseStatistics {
  public:
    // After `half_life_tokens` a use counts half.
    UseStatistics(Catalog catalog, double half_life_tokens);

    // The layer at `position` runs for T tokens, which chose `ids` [T][K] of its experts. Returns the numbers
    // of those, ascending, each once.
    std::vector<int> observe(int position, const std::int32_t* ids, std::int64_t num_tokens,
                             std::int64_t top_k);
    // A forecast of which experts of a layer the next token will use: about a probability for each; less than
    // none counts as none.
    void expect(int position, const float* uses);

    const Catalog& catalog() const { return catalog_; }
    std::vector<double>& frequency() { return frequency_; }
    std::vector<double>& expected() { return expected_; }
    double frequency(int expert) const { return frequency_[static_cast<std::size_t>(expert)]; }
    double expected(int expert) const { return expected_[static_cast<std::size_t>(expert)]; }
    // By the clock; -1: never.
    std::int64_t last_use(int expert) const { return last_use_[static_cast<std::size_t>(expert)]; }
    // Layers run so far.
    std::int64_t clock() const { return clock_; }
    // Of the layer that is running.
    int position() const { return position_; }
    // Layers until an expert's layer runs next: 1 for the next one, as many as run at a step for the present
    // one; S for what does not run again before the next prompt.
    int layers_until(int expert) const { return until_[static_cast<std::size_t>(catalog_.position(expert))]; }
    // Layers that run at a step since an expert's layer ran: 0 for the present one.
    int layers_since(int expert) const;
    // Whether the layer at a position has run for this prompt and will not for this answer.
    bool is_over(int position) const { return position < catalog_.first_step() && position < position_; }
    // Experts of such layers: the first ones of the catalog.
    int num_over() const;

  private:
    void count_layers();

    Catalog catalog_;
    double keep_;                    // what a token leaves of a frequency
    std::vector<double> frequency_;  // uses per token, decayed
    std::vector<double> expected_;   // uses by the next token, 0 where nothing was forecast
    std::vector<std::int64_t> last_use_;
    std::vector<int> until_;  // by position
    std::int64_t clock_ = 0;
    int position_ = 0;
};

}  // namespace edgemoe
