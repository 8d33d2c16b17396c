#include "experts/predictors.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace edgemoe {
namespace {

// Keeps the logarithm of a probability of 0 finite.
constexpr float kLeastProbability = 1e-6f;

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(std::string("forecast: ") + what);
}

void require_ids(const std::int32_t* ids, std::int64_t count, std::int64_t num_experts) {
    const auto is_inside = [=](std::int32_t id) { return id >= 0 && id < num_experts; };
    require(std::all_of(ids, ids + count, is_inside), "an expert is outside its layer");
}

// Only the last token of a chunk is followed by one that has not run.
bool is_of_last_alone(int target, int position) { return target <= position; }

Routed last_of(const Routed& routed) {
    const std::int64_t last = routed.num_tokens - 1;
    return {routed.x + last * routed.width,
            routed.ids + last * routed.top_k,
            routed.weights + last * routed.top_k,
            1,
            routed.width,
            routed.top_k};
}

// The rows of the first `lookahead` targets, or all where packing cannot part them.
Matrix rows_ahead(const GateHead& head, std::size_t lookahead) {
    Matrix matrix = head.matrix;
    std::int64_t rows = 0;
    for (std::size_t i = 0; i < lookahead; ++i) rows += head.targets[i].second;
    if (rows % kRowGroup == 0) matrix.rows = rows;
    return matrix;
}

void add(float* sums, const float* row, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) sums[i] += row[i];
}

}  // namespace

GatePredictor::GatePredictor(std::map<int, GateHead> heads, std::vector<std::int64_t> num_experts,
                             std::map<int, const Router*> routers)
    : heads_(std::move(heads)), num_experts_(std::move(num_experts)), routers_(std::move(routers)) {
    const auto has = [&](int position) {
        return position >= 0 && position < static_cast<int>(num_experts_.size());
    };
    for (const auto& [position, head] : heads_) {
        std::int64_t rows = 0;
        bool fits = has(position);
        for (const auto& [target, size] : head.targets) {
            fits = fits && has(target) && num_experts_[static_cast<std::size_t>(target)] == size;
            rows += size;
        }
        if (!fits || rows != head.matrix.rows) {
            throw std::invalid_argument("GatePredictor: the head at position " + std::to_string(position) +
                                        " does not fit the layers");
        }
    }
    for (const auto& [position, router] : routers_) {
        require(has(position) && num_experts_[static_cast<std::size_t>(position)] == router->num_experts,
                "a router does not fit its layer");
    }
}

std::vector<Forecast> GatePredictor::forecast(int position, const Routed& routed, int lookahead) {
    const auto found = heads_.find(position);
    if (found == heads_.end() || lookahead < 1) return {};
    const GateHead& head = found->second;
    const std::int64_t num_experts = num_experts_[static_cast<std::size_t>(position)];
    require(routed.width + num_experts < head.matrix.cols, "the head has too few columns");
    require_ids(routed.ids, routed.num_tokens * routed.top_k, num_experts);
    const std::size_t num_targets = std::min(head.targets.size(), static_cast<std::size_t>(lookahead));
    const Matrix rows = rows_ahead(head, num_targets);
    std::vector<float> scores(static_cast<std::size_t>(routed.num_tokens * rows.rows));
    gate_scores(routed, num_experts, rows, scores.data());
    std::vector<Forecast> forecasts;
    std::int64_t first = 0;
    for (std::size_t i = 0; i < num_targets; ++i) {
        const auto [target, size] = head.targets[i];
        const std::int64_t first_token = is_of_last_alone(target, position) ? routed.num_tokens - 1 : 0;
        Forecast& forecast = forecasts.emplace_back();
        forecast.position = target;
        forecast.num_tokens = routed.num_tokens - first_token;
        forecast.num_experts = size;
        forecast.scores.reserve(static_cast<std::size_t>(forecast.num_tokens * size));
        for (std::int64_t t = first_token; t < routed.num_tokens; ++t) {
            const float* row = scores.data() + t * rows.rows + first;
            forecast.scores.insert(forecast.scores.end(), row, row + size);
            if (const auto router = routers_.find(target); router != routers_.end()) {
                router->second->choice_scores(forecast.scores.data() + std::ssize(forecast.scores) - size);
            }
        }
        first += size;
    }
    return forecasts;
}

TablePredictor::TablePredictor(std::map<int, TransitionTable> tables,
                               const std::vector<std::int64_t>& num_experts)
    : tables_(std::move(tables)), num_layers_(static_cast<int>(num_experts.size())) {
    if (num_layers_ == 0) throw std::invalid_argument("TablePredictor: no layers");
    const auto size_before = [&](int position, int num_layers) {
        const int layer = (position + 2 * num_layers_ - num_layers) % num_layers_;
        return num_experts[static_cast<std::size_t>(layer)];
    };
    for (const auto& [position, table] : tables_) {
        const bool fits =
            position >= 0 && position < num_layers_ && table.num_experts == size_before(position, 0) &&
            table.num_previous == size_before(position, 1) && table.num_before == size_before(position, 2);
        if (!fits) {
            throw std::invalid_argument("TablePredictor: the table of position " + std::to_string(position) +
                                        " does not fit the layers");
        }
    }
}

void TablePredictor::pass_over(int position, const Routed& routed) {
    before_position_ = position;
    before_.assign(routed.ids, routed.ids + routed.num_tokens * routed.top_k);
    before_tokens_ = routed.num_tokens;
}

std::vector<Forecast> TablePredictor::forecast(int position, const Routed& routed, int) {
    const std::vector<std::int32_t> before = std::exchange(before_, {});
    // Else it is another text or another part of a prompt, or layers ran that this was not told of.
    const bool has_before = before_tokens_ == routed.num_tokens && target(before_position_) == position &&
                            (position != 0 || routed.num_tokens == 1);
    pass_over(position, routed);
    const int next = target(position);
    const auto found = tables_.find(next);
    if (found == tables_.end()) return {};
    const TransitionTable& table = found->second;
    const Routed now = is_of_last_alone(next, position) ? last_of(routed) : routed;
    const std::int64_t num_before =
        has_before ? static_cast<std::int64_t>(before.size()) / routed.num_tokens : 0;
    require_ids(now.ids, now.num_tokens * now.top_k, table.num_previous);
    const std::int32_t* earlier = before.data() + (routed.num_tokens - now.num_tokens) * num_before;
    require_ids(earlier, now.num_tokens * num_before, table.num_before);
    const std::int64_t size = table.num_experts, top_k = now.top_k;
    Forecast forecast{next, now.num_tokens, size, {}};
    forecast.scores.resize(static_cast<std::size_t>(now.num_tokens * size));
    std::vector<float> sums(static_cast<std::size_t>(size));
    // Adds to a token's scores the mean of rows that were added up.
    const auto add_mean = [&](float* scores, std::int64_t count) {
        for (std::int64_t i = 0; i < size; ++i) {
            scores[i] += sums[static_cast<std::size_t>(i)] / static_cast<float>(count);
        }
        std::fill(sums.begin(), sums.end(), 0.0f);
    };
    for (std::int64_t t = 0; t < now.num_tokens; ++t) {
        float* scores = forecast.scores.data() + t * size;
        const std::int32_t* previous = now.ids + t * top_k;
        const std::int32_t* farther = earlier + t * num_before;
        if (num_before > 0 && table.pair != nullptr) {
            for (std::int64_t b = 0; b < num_before; ++b) {
                for (std::int64_t k = 0; k < top_k; ++k) {
                    const std::int64_t row = farther[b] * table.num_previous + previous[k];
                    add(sums.data(), table.pair + row * size, size);
                }
            }
            add_mean(scores, num_before * top_k);
            continue;
        }
        for (std::int64_t k = 0; k < top_k; ++k) add(sums.data(), table.single + previous[k] * size, size);
        add_mean(scores, top_k);
        for (std::int64_t b = 0; b < num_before; ++b) add(sums.data(), table.older + farther[b] * size, size);
        if (num_before > 0) add_mean(scores, num_before);
    }
    return {std::move(forecast)};
}

HybridPredictor::HybridPredictor(Predictor& gate, TablePredictor& table, std::map<int, float> table_weights)
    : gate_(gate), table_(table), table_weights_(std::move(table_weights)) {}

std::vector<Forecast> HybridPredictor::forecast(int position, const Routed& routed, int lookahead) {
    std::vector<Forecast> forecasts = gate_.forecast(position, routed, lookahead);
    const auto found = table_weights_.find(table_.target(position));
    if (found == table_weights_.end() || found->second == 0.0f) {
        table_.pass_over(position, routed);
        return forecasts;
    }
    for (const Forecast& prior : table_.forecast(position, routed, 1)) {
        for (Forecast& forecast : forecasts) {
            if (forecast.position != prior.position) continue;
            require(forecast.scores.size() == prior.scores.size(), "gate and table differ in size");
            for (std::size_t i = 0; i < prior.scores.size(); ++i) {
                forecast.scores[i] += found->second * std::log(prior.scores[i] + kLeastProbability);
            }
        }
    }
    return forecasts;
}

StepPredictor::StepPredictor(Predictor& predictor, int first_step)
    : predictor_(predictor), first_step_(first_step) {}

std::vector<Forecast> StepPredictor::forecast(int position, const Routed& routed, int lookahead) {
    if (position < first_step_) return {};
    std::vector<Forecast> forecasts = predictor_.forecast(position - first_step_, routed, lookahead);
    for (Forecast& forecast : forecasts) forecast.position += first_step_;
    return forecasts;
}

}  // namespace edgemoe
