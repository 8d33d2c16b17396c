// Which experts the next layers will choose, said before their routers can.
//
// Letters: T tokens, D width, E experts of a layer, K chosen. A layer's position is its place among those
// that have experts; after the last comes the first, of the next token.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "experts/gate.h"
#include "kernels/matmul.h"
#include "ops/router.h"

namespace edgemoe {

// Scores [T][E] for the layer at a position: a higher one is likelier, within one row.
struct Forecast {
    int position;
    std::int64_t num_tokens;
    std::int64_t num_experts;
    std::vector<float> scores;
};

class Predictor {
  public:
    virtual ~Predictor() = default;
    // For the next `lookahead` layers or fewer, the nearest first. Called once for each layer, in the order
    // in which they run, with what its router saw and chose. Throws std::invalid_argument where that does not
    // fit what the predictor was made for.
    virtual std::vector<Forecast> forecast(int position, const Routed& routed, int lookahead) = 0;
};

// Routers of the layers after one, as they act on that one's state, stacked into one matrix; its columns are
// those of gate_scores().
struct GateHead {
    Matrix matrix;
    std::vector<std::pair<int, std::int64_t>> targets;  // (position, E), in the order of the rows
};

// Routers of the next layers on the present state, as they are or corrected by regression.
class GatePredictor : public Predictor {
  public:
    // `heads` by position; `num_experts` of every position. `routers` by the position that is forecast: what
    // makes choice scores of its logits; where there is none the logits are the scores. The matrices' bytes
    // and the routers outlive it. Throws std::invalid_argument where rows, targets or routers do not fit.
    GatePredictor(std::map<int, GateHead> heads, std::vector<std::int64_t> num_experts,
                  std::map<int, const Router*> routers = {});
    std::vector<Forecast> forecast(int position, const Routed& routed, int lookahead) override;

  private:
    std::map<int, GateHead> heads_;
    std::vector<std::int64_t> num_experts_;
    std::map<int, const Router*> routers_;
};

// Probabilities of a layer's experts given those chosen in the two layers before it, of which the nearer has
// E1 experts and the farther E2. The arrays outlive it.
struct TransitionTable {
    std::int64_t num_experts, num_previous, num_before;  // E, E1, E2
    const float* single;                                 // [E1][E]
    const float* older;                                  // [E2][E]
    const float* pair;  // [E2][E1][E]; nullptr: too many, `older` takes its part
};

// The paper's (section III-C): experts of the two previous layers give those of the next. The layers before
// a token's first are the last ones of the token before it.
class TablePredictor : public Predictor {
  public:
    // `tables` by the position that they forecast; `num_experts` of every position. Throws
    // std::invalid_argument where a table does not fit the layers.
    TablePredictor(std::map<int, TransitionTable> tables, const std::vector<std::int64_t>& num_experts);
    std::vector<Forecast> forecast(int position, const Routed& routed, int lookahead) override;
    // The position that is forecast at this one.
    int target(int position) const { return (position + 1) % num_layers_; }
    // The layer at a position runs, and no forecast is wanted.
    void pass_over(int position, const Routed& routed);

  private:
    std::map<int, TransitionTable> tables_;
    int num_layers_;
    // What the layer that was last told of chose: [T][K].
    std::vector<std::int32_t> before_;
    std::int64_t before_tokens_ = 0;
    int before_position_ = 0;
};

// The gate's scores plus the logarithm of the table's, weighted per layer. Where a weight is 0 the table is
// not asked.
class HybridPredictor : public Predictor {
  public:
    // Both outlive it; `table_weights` by the position that is forecast.
    HybridPredictor(Predictor& gate, TablePredictor& table, std::map<int, float> table_weights);
    std::vector<Forecast> forecast(int position, const Routed& routed, int lookahead) override;

  private:
    Predictor& gate_;
    TablePredictor& table_;
    std::map<int, float> table_weights_;
};

// A predictor that knows the layers of every step alone, in a model whose encoder's come before them. For a
// prompt it says nothing: its tokens need nearly all experts of a layer anyway.
class StepPredictor : public Predictor {
  public:
    // The predictor outlives it, and calls the position `first_step` 0.
    StepPredictor(Predictor& predictor, int first_step);
    std::vector<Forecast> forecast(int position, const Routed& routed, int lookahead) override;

  private:
    Predictor& predictor_;
    int first_step_;
};

}  // namespace edgemoe
