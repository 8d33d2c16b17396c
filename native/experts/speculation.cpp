#include "experts/speculation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "ops/ops.h"

namespace edgemoe {
namespace {

// Weight of the newest observation in how often forecasts hold.
constexpr double kNewest = 0.05;
// Before anything was observed: how often an expert ranked among the first K, or the next K, is chosen.
constexpr double kFirstConfidence = 0.8, kNextConfidence = 0.15;
// A wrong read also pushes something out; the share of a read that this costs on average.
constexpr double kEvictionCost = 0.1;
// Part of a layer's time that is left when its last expert has arrived: that expert and the next attention.
constexpr double kTailShare = 0.5;
// One layer ahead is early enough when its time is this many reads', and how far to look otherwise.
constexpr double kAmple = 0.7;
constexpr int kMaxLookahead = 2;

}  // namespace

Speculation::Speculation(Residency& residency, Reads& reads, Predictor& predictor, LayerPace& pace,
                         Options options)
    : residency_(residency),
      reads_(reads),
      predictor_(predictor),
      pace_(pace),
      options_(std::move(options)),
      governor_(residency.catalog().num_layers() - residency.catalog().first_step()) {
    const Catalog& catalog = residency.catalog();
    const std::vector<std::int64_t>& sizes = options_.record_sizes;
    if (static_cast<int>(sizes.size()) != catalog.num_experts() || options_.top_k < 1) {
        throw std::invalid_argument("speculation: one size for each expert, and some are chosen");
    }
    typical_read_s_ = pace.read_s(*std::max_element(sizes.begin(), sizes.end()));
    std::vector<double> confidence(static_cast<std::size_t>(options_.top_k), kFirstConfidence);
    confidence.resize(2 * confidence.size(), kNextConfidence);
    const auto num_layers = static_cast<std::size_t>(catalog.num_layers());
    confidence_.assign(num_layers, confidence);
    ranked_.resize(num_layers);
    started_.resize(num_layers);
}

std::vector<int> Speculation::settle(int position, std::int64_t num_tokens, const std::vector<int>& chosen) {
    pace_.layer_begins(num_tokens, reads_.waited_s());
    const auto is_chosen = [&](int expert) {
        return std::binary_search(chosen.begin(), chosen.end(), expert);
    };
    const auto layer = static_cast<std::size_t>(position);
    const std::vector<int> ranked = std::exchange(ranked_[layer], {});
    reserve(ranked, false);
    for (std::size_t rank = 0; rank < ranked.size(); ++rank) {
        double& confidence = confidence_[layer][rank];
        confidence += kNewest * ((is_chosen(ranked[rank]) ? 1.0 : 0.0) - confidence);
    }
    std::vector<int> useful;
    for (const int expert : std::exchange(started_[layer], {})) {
        if (is_chosen(expert)) {
            useful.push_back(expert);
        } else if (!reads_.contains(expert) || !reads_.cancel(expert)) {
            wasted_bytes_ += options_.record_sizes[static_cast<std::size_t>(expert)];
        }
    }
    return useful;
}

void Speculation::start(int position, const Routed& routed) {
    const Catalog& catalog = residency_.catalog();
    const bool is_step = routed.num_tokens == 1;
    // What lies between two tokens, such as a user who reads, is no layer's time.
    if (is_step && position > catalog.first_step() && pace_.last_layer_s() > 0) {
        governor_.layer_took(pace_.last_layer_s());
    }
    if ((is_step && !governor_.is_on()) || residency_.num_resident() == catalog.num_experts()) return;
    const double layer_s = pace_.layer_s(routed.num_tokens);
    // Farther layers are forecast worse: look only as far as a read takes.
    const int lookahead = typical_read_s_ < kAmple * layer_s ? 1 : kMaxLookahead;
    const std::vector<Forecast> forecasts = predictor_.forecast(position, routed, lookahead);
    double queued_s = pace_.transfer_s(reads_.pending_bytes());
    // The next router speaks a layer's computing later, or when what is demanded has come and is computed.
    const double demanded_s = pace_.transfer_s(reads_.demanded_bytes());
    double until_s = std::max(layer_s, demanded_s + kTailShare * layer_s);
    std::vector<Ranking> rankings;
    for (const Forecast& forecast : forecasts) rankings.push_back(rank(forecast));
    for (std::size_t i = 0; i < rankings.size(); ++i) {
        queued_s = start_paying(rankings[i], static_cast<int>(i) + 1, until_s, queued_s);
        until_s += layer_s;
    }
}

double Speculation::start_paying(const Ranking& ranking, int distance, double until_s, double queued_s) {
    for (std::size_t i = 0; i < ranking.experts.size(); ++i) {
        const int expert = ranking.experts[i];
        if (residency_.is_resident(expert) || reads_.contains(expert)) continue;
        const std::int64_t num_bytes = options_.record_sizes[static_cast<std::size_t>(expert)];
        // Those after it are less likely still.
        if (!pays(ranking.probabilities[i], pace_.read_s(num_bytes), until_s - queued_s,
                  pace_.handling_s())) {
            break;
        }
        if (!reads_.start(expert, distance)) break;
        queued_s += pace_.transfer_s(num_bytes);
        started_[static_cast<std::size_t>(residency_.catalog().position(expert))].push_back(expert);
        ++num_reads_;
    }
    return queued_s;
}

Speculation::Ranking Speculation::rank(const Forecast& forecast) {
    const Catalog& catalog = residency_.catalog();
    const int position = forecast.position;
    if (position < 0 || position >= catalog.num_layers() ||
        forecast.num_experts != catalog.first(position + 1) - catalog.first(position)) {
        throw std::invalid_argument("speculation: a forecast fits no layer");
    }
    return forecast.num_tokens == 1 ? rank_for_token(forecast) : rank_for_chunk(forecast);
}

Speculation::Ranking Speculation::rank_for_token(const Forecast& forecast) {
    const int first = residency_.catalog().first(forecast.position);
    const auto layer = static_cast<std::size_t>(forecast.position);
    std::vector<int>& ranked = ranked_[layer];
    reserve(ranked, false);  // forecast from farther away before
    const std::int64_t count = std::min<std::int64_t>(2 * options_.top_k, forecast.num_experts);
    ranked = largest(forecast.scores.data(), forecast.num_experts, count);
    for (int& expert : ranked) expert += first;
    reserve(ranked, true);
    return {ranked, confidence_[layer]};
}

// A chunk of tokens needs the union: an expert is wanted unless every forecast of it was wrong.
Speculation::Ranking Speculation::rank_for_chunk(const Forecast& forecast) const {
    const std::int64_t top_k = std::min<std::int64_t>(options_.top_k, forecast.num_experts);
    std::vector<int> votes(static_cast<std::size_t>(forecast.num_experts));
    for (std::int64_t t = 0; t < forecast.num_tokens; ++t) {
        const float* scores = forecast.scores.data() + t * forecast.num_experts;
        for (const std::int32_t expert : largest(scores, forecast.num_experts, top_k)) {
            ++votes[static_cast<std::size_t>(expert)];
        }
    }
    std::vector<int> order(votes.size());
    std::iota(order.begin(), order.end(), 0);
    const auto votes_of = [&](int expert) { return votes[static_cast<std::size_t>(expert)]; };
    std::erase_if(order, [&](int expert) { return votes_of(expert) == 0; });
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return votes_of(a) > votes_of(b); });
    const std::vector<double>& confidence = confidence_[static_cast<std::size_t>(forecast.position)];
    const double trust = std::accumulate(confidence.begin(), confidence.begin() + options_.top_k, 0.0) /
                         static_cast<double>(options_.top_k);
    Ranking ranking;
    for (const int expert : order) {
        ranking.experts.push_back(residency_.catalog().first(forecast.position) + expert);
        ranking.probabilities.push_back(1 - std::pow(1 - trust, votes_of(expert)));
    }
    return ranking;
}

void Speculation::reserve(const std::vector<int>& ranked, bool is_reserved) {
    const auto count = std::min(ranked.size(), static_cast<std::size_t>(options_.top_k));
    residency_.reserve({ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(count)}, is_reserved);
}

bool pays(double probability, double read_s, double until_needed_s, double handling_s) {
    const double hidden_s = std::min(std::max(until_needed_s, 0.0), read_s);
    const double in_vain_s = (read_s - hidden_s) + kEvictionCost * read_s + handling_s;
    return probability * hidden_s > (1 - probability) * in_vain_s;
}

}  // namespace edgemoe
