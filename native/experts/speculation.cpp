#include "experts/speculation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "ops/router.h"

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
// Weight of the newest rehearsal in what one takes, and how much less that is believed to be each time there
// seems to be no time for one: a single slow one must not end them.
constexpr double kNewestRehearsal = 0.5, kForgotten = 0.01;
// Part of a wait that a rehearsal may take: what it asks for is read in the rest.
constexpr double kMostOfWait = 0.5;
// No rehearsal where queued reads take more than this many latencies: bandwidth is the limit then, and asking
// earlier brings nothing earlier.
constexpr double kMostLatencies = 4;

}  // namespace

Speculation::Speculation(Residency& residency, Reads& reads, Predictor& predictor, LayerPace& pace,
                         Options options)
    : residency_(residency),
      reads_(reads),
      predictor_(predictor),
      pace_(pace),
      options_(std::move(options)),
      // The first layer of a token is not timed.
      governor_(std::max(1, residency.catalog().num_layers() - residency.catalog().first_step() - 1)) {
    const Catalog& catalog = residency.catalog();
    const std::vector<std::int64_t>& sizes = options_.record_sizes;
    if (options_.max_rehearsed < 0 || options_.max_rehearsed > kMaxRehearsed) {
        throw std::invalid_argument("speculation: so many layers cannot be rehearsed");
    }
    if (static_cast<int>(sizes.size()) != catalog.num_experts() || options_.top_k < 1) {
        throw std::invalid_argument("speculation: one size for each expert, and some are chosen");
    }
    typical_read_s_ = pace.read_s(*std::max_element(sizes.begin(), sizes.end()));
    Kind kind;
    kind.confidence.assign(static_cast<std::size_t>(options_.top_k), kFirstConfidence);
    kind.confidence.resize(2 * kind.confidence.size(), kNextConfidence);
    kind.record.num_chosen.resize(kind.confidence.size());
    const auto num_layers = static_cast<std::size_t>(catalog.num_layers());
    Kinds kinds;
    kinds.fill(kind);
    kinds_.assign(num_layers, kinds);
    started_.resize(num_layers);
}

std::vector<int> Speculation::settle(int position, std::int64_t num_tokens, const std::vector<int>& chosen) {
    // Storage would have been waited for instead of rehearsing.
    pace_.layer_begins(num_tokens, reads_.waited_s() + all_rehearsals_s_);
    const auto layer = static_cast<std::size_t>(position);
    if (num_tokens == 1) {  // what was ranked was ranked for a row alone
        for (Kind& kind : kinds_[layer]) learn(kind, chosen);
    }
    release(kinds_[layer]);
    std::vector<int> useful;
    for (const int expert : std::exchange(started_[layer], {})) {
        if (std::binary_search(chosen.begin(), chosen.end(), expert)) {
            useful.push_back(expert);
        } else if (reads_.contains(expert) ? !reads_.cancel(expert) : residency_.is_resident(expert)) {
            wasted_bytes_ += options_.record_sizes[static_cast<std::size_t>(expert)];
        }
    }
    return useful;
}

void Speculation::learn(Kind& kind, const std::vector<int>& chosen) const {
    if (kind.ranked.empty()) return;
    ++kind.record.num_forecasts;
    for (std::size_t rank = 0; rank < kind.ranked.size(); ++rank) {
        const bool is_chosen = std::binary_search(chosen.begin(), chosen.end(), kind.ranked[rank]);
        kind.confidence[rank] += kNewest * ((is_chosen ? 1.0 : 0.0) - kind.confidence[rank]);
        kind.record.num_chosen[rank] += is_chosen;
    }
}

void Speculation::release(Kinds& kinds) {
    for (Kind& kind : kinds) {
        reserve(kind.ranked, false);
        kind.ranked.clear();
    }
}

void Speculation::abandon() noexcept {
    for (Kinds& kinds : kinds_) release(kinds);
    for (std::vector<int>& started : started_) started.clear();
}

std::vector<Speculation::Record> Speculation::records(int distance) const {
    std::vector<Record> all;
    for (const Kinds& kinds : kinds_) all.push_back(kinds.at(static_cast<std::size_t>(distance)).record);
    return all;
}

void Speculation::start(int position, const Routed& routed) {
    const Catalog& catalog = residency_.catalog();
    // Of a prompt or of an answer: what a row alone takes is compared with what another alone takes.
    const bool is_alone = routed.num_tokens == 1;
    // What lies between two tokens, such as a user who reads, is no layer's time.
    if (is_alone && position > catalog.first_step() && pace_.last_layer_s() > 0) {
        governor_.layer_took(pace_.last_layer_s());
    }
    if ((is_alone && !governor_.is_on()) || residency_.num_resident() == catalog.num_experts()) return;
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

bool Speculation::begin_rehearsal(int distance) {
    if (!governor_.is_on() || distance > options_.max_rehearsed) return false;
    if (pace_.transfer_s(reads_.pending_bytes()) > kMostLatencies * pace_.read_s(0)) return false;
    rehearsal_began_s_ = pace_.elapsed_s();
    const double wait_s = pace_.read_s(reads_.demanded_bytes()) - rehearsal_began_s_;
    if (kMostOfWait * wait_s >= rehearsal_s_) return true;
    rehearsal_s_ *= 1 - kForgotten;
    return false;
}

void Speculation::end_rehearsal(int position, int distance, const std::vector<float>& scores) {
    const double ended_s = pace_.elapsed_s(), took_s = ended_s - rehearsal_began_s_;
    rehearsal_s_ += kNewestRehearsal * (took_s - rehearsal_s_);
    all_rehearsals_s_ += took_s;
    const Ranking ranking = rank_for_token({position, 1, std::ssize(scores), scores}, distance);
    drop_unlikely(position, ranking);
    const double wait_s = std::max(0.0, pace_.read_s(reads_.demanded_bytes()) - ended_s);
    const double until_s = wait_s + (distance - 1 + kTailShare) * pace_.layer_s(/*num_tokens=*/1);
    start_paying(ranking, distance, until_s, pace_.transfer_s(reads_.pending_bytes()));
}

void Speculation::drop_unlikely(int position, const Ranking& ranking) {
    const auto begin = ranking.experts.begin();
    const auto end = begin + std::min<std::ptrdiff_t>(options_.top_k, std::ssize(ranking.experts));
    std::erase_if(started_[static_cast<std::size_t>(position)], [&](int expert) {
        return std::find(begin, end, expert) == end && reads_.contains(expert) && reads_.cancel(expert);
    });
}

double Speculation::start_paying(const Ranking& ranking, int distance, double until_s, double queued_s) {
    for (std::size_t i = 0; i < ranking.experts.size(); ++i) {
        const int expert = ranking.experts[i];
        if (residency_.is_resident(expert) || reads_.contains(expert)) continue;
        const std::int64_t num_bytes = options_.record_sizes[static_cast<std::size_t>(expert)];
        if (!pays(ranking.probabilities[i], pace_.read_s(num_bytes), until_s - queued_s,
                  pace_.handling_s())) {
            continue;  // a smaller record may
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
    return forecast.num_tokens == 1 ? rank_for_token(forecast, 0) : rank_for_chunk(forecast);
}

Speculation::Ranking Speculation::rank_for_token(const Forecast& forecast, int distance) {
    const int first = residency_.catalog().first(forecast.position);
    Kinds& kinds = kinds_[static_cast<std::size_t>(forecast.position)];
    const bool is_rehearsed =
        std::any_of(kinds.begin() + 1, kinds.end(), [](const Kind& kind) { return !kind.ranked.empty(); });
    Kind& kind = kinds[static_cast<std::size_t>(distance)];
    const std::int64_t count = std::min<std::int64_t>(2 * options_.top_k, forecast.num_experts);
    std::vector<int> ranked = largest(forecast.scores.data(), forecast.num_experts, count);
    for (int& expert : ranked) expert += first;
    if (distance == 0 && is_rehearsed) {
        kind.ranked = std::move(ranked);
        return {};
    }
    for (const Kind& other : kinds) reserve(other.ranked, false);
    kind.ranked = std::move(ranked);
    reserve(kind.ranked, true);
    return {kind.ranked, kind.confidence};
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
    const std::vector<double>& confidence =
        kinds_[static_cast<std::size_t>(forecast.position)].front().confidence;
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
