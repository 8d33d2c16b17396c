// When reading ahead is done and when it is not, and that it changes no bit. tests/experts compares what
// predictors say with NumPy.
#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <stdexcept>
#include <vector>

#include "experts/speculation.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace edgemoe;

namespace {

constexpr double kMs = 1e-3;
constexpr std::int64_t kPage = 4096;

// Reads under way that never end.
class Line : public Reads {
  public:
    bool start(int expert, int priority) override {
        started.push_back(expert);
        priorities.push_back(priority);
        pending += kPage;
        return true;
    }
    bool cancel(int expert) override {
        if (cancellable.erase(expert) == 0) return false;
        std::erase(started, expert);
        pending -= kPage;
        return true;
    }
    bool contains(int expert) const override {
        return std::find(started.begin(), started.end(), expert) != started.end();
    }
    std::int64_t pending_bytes() const override { return pending; }
    std::int64_t demanded_bytes() const override { return demanded; }
    double waited_s() const override { return 0; }

    std::vector<int> started, priorities;
    std::set<int> cancellable;
    std::int64_t pending = 0, demanded = 0;
};

// Always says the same.
class Foretells : public Predictor {
  public:
    explicit Foretells(std::vector<Forecast> forecasts) : forecasts_(std::move(forecasts)) {}
    std::vector<Forecast> forecast(int, const Routed&, int lookahead) override {
        last_lookahead = lookahead;
        return forecasts_;
    }
    int last_lookahead = 0;

  private:
    std::vector<Forecast> forecasts_;
};

// Three layers of four experts of a page, room for one layer, and a clock that is set by hand.
struct Machine {
    UseStatistics statistics{
        Catalog(std::vector<std::int64_t>(12, kPage), {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}, 0), 32.0};
    std::unique_ptr<EvictionPolicy> policy = make_policy("lru");
    Residency residency{statistics, *policy, 4 * kPage, 0.25};
    Line line;
    double now_s = 0;
    LayerPace pace;
    Foretells predictor;
    Speculation speculation;

    // A read takes a millisecond of storage, and a layer at first as long.
    explicit Machine(std::vector<Forecast> forecasts, double reads_per_ms = 1, double latency_s = 0,
                     int max_rehearsed = Speculation::kMaxRehearsed)
        : pace(reads_per_ms * kPage / kMs, latency_s, 0, [this] { return now_s; }),
          predictor(std::move(forecasts)),
          speculation(residency, line, predictor, pace,
                      {2, std::vector<std::int64_t>(12, kPage), max_rehearsed}) {}

    void start(int position, std::int64_t num_tokens = 1) {
        const std::vector<float> x(static_cast<std::size_t>(32 * num_tokens));
        const std::vector<std::int32_t> ids(static_cast<std::size_t>(2 * num_tokens));
        speculation.start(position, {x.data(), ids.data(), x.data(), num_tokens, 32, 2});
    }

    // Whether there was time for a rehearsal, of the layer after this or a later one, which takes so long.
    bool rehearse(int position, const std::vector<float>& scores, double takes_s = 0, int distance = 1) {
        if (!speculation.begin_rehearsal(distance)) return false;
        now_s += takes_s;
        speculation.end_rehearsal(position + distance, distance, scores);
        return true;
    }

    // Experts that are in memory.
    void load(const std::vector<int>& experts) {
        for (const int expert : experts) {
            residency.take(expert, true);
            residency.admit(expert);
        }
    }
};

// Sure of the second layer's first two experts.
std::vector<Forecast> first_two() { return {{1, 1, 4, {2, 1, 0, 0}}}; }

// Tokens of so many layers; how long one takes by whether reading ahead is on. The share with it on.
template <typename Seconds>
double run(Governor& governor, int num_layers, int num_tokens, Seconds seconds) {
    int on = 0;
    for (int i = 0; i < num_layers * num_tokens; ++i) {
        on += governor.is_on();
        governor.layer_took(seconds(governor.is_on()));
    }
    return static_cast<double>(on) / (num_layers * num_tokens);
}

constexpr int kTrial = Governor::kTrialTokens, kKeep = Governor::kKeepTokens, kTurn = Governor::kTurnTokens;

}  // namespace

TEST(a_likely_read_that_fits_pays_and_one_for_far_too_slow_storage_does_not) {
    CHECK(pays(0.8, 1 * kMs, 2 * kMs, 0));
    CHECK(!pays(0.8, 40 * kMs, 2 * kMs, 0));
    CHECK(!pays(0.02, 1 * kMs, 2 * kMs, 0));
    CHECK(!pays(0.8, 1 * kMs, -1 * kMs, 0));       // too late
    CHECK(!pays(0.5, 1 * kMs, 2 * kMs, 1 * kMs));  // keeps the processor busy for as long as it hides
}

TEST(what_pays_still_pays_when_likelier_or_cheaper) {
    int num_paying = 0;
    for (const double probability : {0.0, 0.1, 0.3, 0.5, 0.8, 1.0}) {
        for (const double read_s : {1e-5, 1e-4, 1e-2, 1.0}) {
            for (const double until_s : {0.0, 1e-5, 1e-3, 1.0}) {
                for (const double handling_s : {0.0, 1e-5, 1e-3}) {
                    if (!pays(probability, read_s, until_s, handling_s)) continue;
                    ++num_paying;
                    CHECK(pays(std::min(1.0, probability + 0.1), read_s, until_s, handling_s));
                    CHECK(pays(probability, read_s, until_s, handling_s / 2));
                }
            }
        }
    }
    CHECK(num_paying > 20);
}

TEST(the_governor_keeps_what_is_faster_and_looks_again) {
    Governor governor(2);
    const auto slower_on = [](bool is_on) { return is_on ? 2 * kMs : 1 * kMs; };
    const auto slower_off = [](bool is_on) { return is_on ? 1 * kMs : 2 * kMs; };
    CHECK_EQUAL(run(governor, 2, kTrial, slower_on), 1.0);  // while the cache is filled nothing is timed
    CHECK_EQUAL(run(governor, 2, kTrial, slower_on), 0.5);  // both ways are timed over as many tokens
    CHECK(!governor.is_on());
    const double off = run(governor, 2, 4 * (kTrial + kKeep), slower_on);
    CHECK(off > 0 && off < 0.06);                                     // off but for trials
    CHECK(run(governor, 2, 4 * (kTrial + kKeep), slower_off) > 0.7);  // the text changed
}

TEST(the_governor_keeps_what_it_had_where_it_cannot_tell) {
    Governor governor(1);
    run(governor, 1, kTrial, [](bool) { return kMs; });
    struct Case {
        double cost_s;  // of reading ahead
        bool is_on;     // afterwards
    };
    for (const Case& c : {Case{0, true}, {0.1 * kMs, true}, {5 * kMs, false}, {-0.1 * kMs, false}}) {
        // Turns of 1 to 3 ms a token, as many of each either way.
        for (int token = 0; token < kTrial + kKeep; ++token) {
            const int turn = token / (2 * kTurn);
            governor.layer_took((1 + turn % 3) * kMs + (governor.is_on() ? c.cost_s : 0));
        }
        CHECK(governor.is_on() == c.is_on);
    }
}

TEST(one_turn_that_was_held_up_decides_nothing) {
    Governor governor(1);
    run(governor, 1, kTrial, [](bool) { return kMs; });
    int token = 0;
    run(governor, 1, kTrial, [&](bool is_on) {
        const bool is_held_up = token++ == kTurn;  // in the first turn that is off
        return (is_on ? 1.4 * kMs : kMs) + (is_held_up ? 20 * kMs : 0);
    });
    CHECK(!governor.is_on());
}

TEST(a_read_is_in_time_where_the_router_waits_too) {
    struct Case {
        int demanded, ahead;  // reads under way
        std::vector<int> started;
    };
    for (const Case& c :
         {Case{0, 0, {4, 5}},
          // The next router waits for what is demanded: half of a read behind that is in time.
          {20, 0, {4}},
          // What was read ahead before holds up reads, but not the router.
          {0, 20, {}}}) {
        Machine machine(first_two(), 2);
        machine.line.demanded = c.demanded * kPage;
        machine.line.pending = (c.demanded + c.ahead) * kPage;
        machine.start(0);
        CHECK(machine.line.started == c.started);
        CHECK_EQUAL(machine.speculation.num_reads(), static_cast<std::int64_t>(c.started.size()));
    }
}

TEST(what_was_read_in_vain_is_dropped_or_counted) {
    Machine machine(first_two(), 2);
    machine.start(0);
    CHECK(machine.line.started == std::vector<int>({4, 5}));
    machine.line.cancellable = {5};
    CHECK(machine.speculation.settle(1, 1, {4, 6}) == std::vector<int>({4}));
    CHECK_EQUAL(machine.speculation.wasted_bytes(), 0);  // had not started
    machine.line.started.clear();
    machine.line.pending = 0;
    machine.start(0);
    CHECK(machine.speculation.settle(1, 1, {6, 7}).empty());
    CHECK_EQUAL(machine.speculation.wasted_bytes(), 2 * kPage);
    CHECK(machine.speculation.settle(1, 1, {4}).empty());  // it was settled
}

TEST(what_is_forecast_is_kept_for_all_but_what_is_needed) {
    Machine machine(first_two(), 0.01);  // so slow that no read pays
    machine.load({4, 5, 8, 9});
    machine.start(0);
    CHECK(machine.line.started.empty());
    CHECK(*machine.residency.take(0, false) == std::vector<int>({8}));
    CHECK(*machine.residency.take(1, false) == std::vector<int>({9}));
    CHECK(!machine.residency.take(2, false));
    machine.speculation.settle(1, 1, {4, 5});
    CHECK(machine.residency.take(2, false).has_value());
}

TEST(forecasts_that_fail_are_trusted_less) {
    Machine machine(first_two(), 2);
    int num_started = 0, num_first = 0;
    for (int i = 0; i < 200; ++i) {
        machine.line.started.clear();
        machine.line.pending = 0;
        machine.start(0);
        if (i < 2) num_first += static_cast<int>(machine.line.started.size());
        if (i >= 198) num_started += static_cast<int>(machine.line.started.size());
        machine.speculation.settle(1, 1, {});
    }
    CHECK_EQUAL(num_first, 4);
    CHECK_EQUAL(num_started, 0);
}

TEST(one_looks_farther_where_a_layer_is_too_short_for_a_read) {
    Machine ample(first_two(), 2), short_of_time(first_two(), 0.5);
    ample.start(0);
    short_of_time.start(0);
    CHECK_EQUAL(ample.predictor.last_lookahead, 1);
    CHECK_EQUAL(short_of_time.predictor.last_lookahead, 2);
}

TEST(a_prompt_gets_what_most_of_its_tokens_want) {
    // Expert 6 is among the two likeliest of all three tokens, 7 of two, 4 of one.
    Machine machine({{1, 3, 4, {0, 0, 2, 1, 1, 0, 2, 0, 0, 0, 2, 1}}}, 10);
    machine.start(0, 3);
    CHECK(machine.line.started == std::vector<int>({6, 7, 4}));
}

TEST(a_rehearsal_takes_the_place_of_what_was_foretold) {
    Machine machine(first_two(), 2, kMs);
    machine.start(0);
    CHECK(machine.line.started == std::vector<int>({4, 5}));
    machine.line.cancellable = {4, 5};
    machine.line.demanded = kPage;
    machine.line.pending += kPage;
    CHECK(machine.rehearse(0, {0, 1, 2, 0}));
    CHECK(machine.line.started == std::vector<int>({5, 6}));  // 4 was dropped
    CHECK(machine.speculation.settle(1, 1, {5, 6}) == std::vector<int>({5, 6}));
    CHECK_EQUAL(machine.speculation.wasted_bytes(), 0);
    const auto foretold = machine.speculation.records(0)[1], rehearsed = machine.speculation.records(1)[1];
    CHECK_EQUAL(foretold.num_forecasts, 1);
    CHECK(foretold.num_chosen == std::vector<std::int64_t>({0, 1, 1, 0}));
    CHECK_EQUAL(rehearsed.num_forecasts, 1);
    CHECK(rehearsed.num_chosen == std::vector<std::int64_t>({1, 1, 0, 0}));
}

TEST(what_was_rehearsed_is_not_overruled_by_the_predictor) {
    Machine machine({{2, 1, 4, {2, 1, 0, 0}}}, 2);
    machine.load({8, 9, 10, 11});
    CHECK(machine.rehearse(0, {0, 0, 1, 2}, 0, 2));
    machine.start(1);
    CHECK(machine.line.started.empty());
    CHECK(*machine.residency.take(0, false) == std::vector<int>({8}));
    CHECK(*machine.residency.take(1, false) == std::vector<int>({9}));
    CHECK(!machine.residency.take(2, false));  // 10 and 11 are expected
    machine.speculation.settle(2, 1, {10, 11});
    CHECK_EQUAL(machine.speculation.records(0)[2].num_chosen[0], 0);
    CHECK_EQUAL(machine.speculation.records(2)[2].num_chosen[0], 1);
}

TEST(a_layer_farther_away_leaves_more_time_for_a_read) {
    for (const int distance : {1, 2}) {
        Machine machine({}, 1.0 / 3);  // a read takes three layers
        CHECK(machine.rehearse(0, {4, 0, 0, 0}, 0, distance));
        CHECK_EQUAL(std::ssize(machine.line.started), distance - 1);
        if (distance == 2) CHECK(machine.line.started[0] == 8 && machine.line.priorities[0] == 2);
    }
}

TEST(no_more_layers_are_rehearsed_than_allowed) {
    for (const int most : {0, 1, 3}) {
        Machine machine({}, 2, kMs, most);
        machine.line.demanded = kPage;
        for (const int distance : {1, 2, 3, 4}) {
            CHECK(machine.speculation.begin_rehearsal(distance) == (distance <= most));
        }
    }
}

TEST(nothing_is_rehearsed_where_reading_ahead_does_not_pay) {
    Machine machine({}, 2, kMs);
    machine.line.demanded = kPage;
    CHECK(machine.speculation.begin_rehearsal(1));
    for (int token = 0; token < 2 * kTrial && machine.speculation.is_on(); ++token) {
        for (int position = 0; position < 3; ++position) {
            machine.now_s += token < kTrial || machine.speculation.is_on() ? 2 * kMs : kMs;
            machine.speculation.settle(position, 1, {});
            machine.start(position);
        }
    }
    CHECK(!machine.speculation.is_on());
    CHECK(!machine.speculation.begin_rehearsal(1));
}

TEST(several_tokens_teach_nothing_of_a_forecast_for_one) {
    Machine machine(first_two(), 0.01);
    machine.load({4, 5, 8, 9});
    machine.start(0);
    machine.speculation.settle(1, 5, {4, 5, 6});
    CHECK_EQUAL(machine.speculation.records(0)[1].num_forecasts, 0);
    CHECK(*machine.residency.take(0, false) == std::vector<int>({4}));  // no longer expected
}

TEST(after_an_error_nothing_is_expected) {
    Machine machine(first_two(), 2);
    machine.load({4, 8, 9, 10});
    machine.start(0);
    CHECK(machine.line.started == std::vector<int>({5, 6}));
    machine.speculation.abandon();
    CHECK(*machine.residency.take(0, false) == std::vector<int>({4}));
    CHECK(machine.speculation.settle(1, 1, {4, 5}).empty());
    CHECK_EQUAL(machine.speculation.wasted_bytes(), 0);
    CHECK_EQUAL(machine.speculation.records(0)[1].num_forecasts, 0);
}

TEST(a_read_that_failed_was_not_in_vain) {
    Machine machine(first_two(), 2);
    machine.start(0);
    machine.load({4});
    machine.line.started.clear();  // 5 could not be read
    CHECK(machine.speculation.settle(1, 1, {6, 7}).empty());
    CHECK_EQUAL(machine.speculation.wasted_bytes(), kPage);
}

TEST(one_rehearses_while_storage_takes_longer) {
    Machine machine({}, 1, 1 * kMs);
    const std::vector<float> scores = {1, 2, 3, 4};
    const auto has_time = [&](int demanded_pages, double elapsed_s, double takes_s) {
        machine.speculation.settle(0, 1, {});
        machine.now_s += elapsed_s;
        machine.line.demanded = demanded_pages * kPage;
        return machine.rehearse(0, scores, takes_s);
    };
    CHECK(has_time(15, 0, 8 * kMs));  // taken to last 4 ms from here on, for which one waits 8
    CHECK(!has_time(6, 0, 4 * kMs));
    CHECK(has_time(8, 0, 4 * kMs));
    CHECK(!has_time(8, 2 * kMs, 4 * kMs));
    CHECK(has_time(10, 2 * kMs, 4 * kMs));
    // Storage that is busy delivers nothing earlier for being asked earlier.
    machine.line.pending = 5 * kPage;
    CHECK(!has_time(10, 0, 4 * kMs));
    machine.line.pending = 0;
    CHECK(!machine.speculation.begin_rehearsal(Speculation::kMaxRehearsed + 1));
    // One that was held up does not end them.
    CHECK(has_time(1000, 0, 100 * kMs));
    int num_skipped = 0;
    while (num_skipped < 1000 && !has_time(9, 0, 4 * kMs)) ++num_skipped;
    CHECK(num_skipped > 50 && num_skipped < 500);
}

TEST(a_rehearsal_is_no_layers_computing) {
    Machine machine({}, 1, 1 * kMs);
    for (int i = 0; i < 500; ++i) {
        machine.speculation.settle(0, 1, {});
        machine.now_s += 2 * kMs;
        machine.line.demanded = 1000 * kPage;
        CHECK(machine.rehearse(0, {1, 2, 3, 4}, 10 * kMs));
    }
    CHECK(std::abs(machine.pace.layer_s(1) - 2 * kMs) < 1e-6);
}

TEST(forecasts_for_other_models_are_refused) {
    for (const Forecast& wrong : {Forecast{3, 1, 4, {1, 2, 3, 4}}, Forecast{1, 1, 3, {1, 2, 3}}}) {
        Machine machine({wrong});
        bool is_refused = false;
        try {
            machine.start(0);
        } catch (const std::invalid_argument&) {
            is_refused = true;
        }
        CHECK(is_refused);
    }
}

TEST(a_long_pause_is_no_layers_time) {
    double now_s = 0;
    LayerPace pace(1e9, 1e-4, 0, [&] { return now_s; });
    CHECK(std::abs(pace.read_s(1'000'000) - 1.1e-3) < 1e-9);
    pace.layer_begins(1, 0);
    CHECK_EQUAL(pace.last_layer_s(), 0.0);  // nothing came before
    for (int i = 0; i < 500; ++i) {
        now_s += 3e-3;  // of which one is spent waiting
        pace.layer_begins(1, (i + 1) * 1e-3);
    }
    CHECK(std::abs(pace.last_layer_s() - 3e-3) < 1e-9);
    CHECK(std::abs(pace.layer_s(1) - 2e-3) < 1e-6);
    now_s += 100;
    pace.layer_begins(1, 0.5);
    CHECK(pace.layer_s(1) < 2.4e-3);
    pace.layer_begins(8, 0.5);
    CHECK_EQUAL(pace.last_layer_s(), 0.0);  // another number of tokens
    now_s += 80e-3;
    pace.layer_begins(8, 0.5);
    CHECK(pace.layer_s(8) > 8e-3);
}

int main() { return edgemoe::testing::run_all(); }
