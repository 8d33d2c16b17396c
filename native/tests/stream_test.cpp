// Layers of experts streamed through a small cache, under the sanitizers. tests/consistency runs whole
// models.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "experts/speculation.h"
#include "experts/stream.h"
#include "kernels/quantize.h"
#include "tests/check.h"
#include "tests/random.h"

using namespace edgemoe;

namespace {

constexpr std::int64_t kPage = 4096, kWidth = 32, kInner = 64;
constexpr int kLayers = 3, kExperts = 4, kAll = kLayers * kExperts;
constexpr std::int64_t kTokens = 5, kTopK = 2;

// Serves one file from memory when it is waited for, the last submitted first. Now and then a read fails or
// is cancelled.
class MemoryReader : public Reader {
  public:
    explicit MemoryReader(const std::vector<std::uint8_t>& file) : file_(file) {}

    Ticket submit(const ReadRequest& request, int) override {
        open_[++last_] = request;
        return last_;
    }
    void begin() override {}
    ReadResult wait(Ticket ticket) override {
        ReadResult result;
        result.request = open_.at(ticket);
        open_.erase(ticket);
        ++num_reads_;
        if (is_broken || (fails_every > 0 && num_reads_ % fails_every == 0)) {
            result.error = EIO;
        } else if (drops_every > 0 && num_reads_ % drops_every == 0) {
            result.is_cancelled = true;
        } else {
            std::memcpy(result.request.destination, file_.data() + result.request.offset,
                        static_cast<std::size_t>(result.request.num_bytes));
        }
        return result;
    }
    std::vector<Ticket> wait_some(const std::vector<Ticket>& tickets, bool) override {
        return {*std::max_element(tickets.begin(), tickets.end())};
    }
    bool cancel(Ticket) override { return false; }

    bool is_broken = false;
    int fails_every = 0;
    int drops_every = 0;

  private:
    const std::vector<std::uint8_t>& file_;
    std::map<Ticket, ReadRequest> open_;
    Ticket last_ = 0;
    int num_reads_ = 0;
};

// Experts of two sizes, one behind the other in a file.
struct Experts {
    std::vector<std::uint8_t> file;
    std::vector<std::int64_t> sizes;
    std::vector<int> positions;
    std::vector<RecordPlace> places;
    std::vector<RecordLayout> layouts;

    Experts() {
        for (int expert = 0; expert < kAll; ++expert) {
            const Format format = expert % 2 == 0 ? Format::kF32 : Format::kQ4;
            layouts.push_back({true, {format, format, format}, kWidth, kInner});
            std::vector<std::uint8_t> record;
            for (int m = 0; m < 3; ++m) {
                const std::int64_t rows = m < 2 ? kInner : kWidth, cols = m < 2 ? kWidth : kInner;
                const std::vector<float> weights =
                    testing::normal(rows * cols, static_cast<unsigned>(10 * expert + m));
                std::vector<std::uint8_t> packed(static_cast<std::size_t>(packed_bytes(format, rows, cols)));
                quantize(weights.data(), rows, cols, format, nullptr, packed.data());
                record.insert(record.end(), packed.begin(), packed.end());
            }
            record.resize((record.size() + kPage - 1) / kPage * kPage);
            sizes.push_back(static_cast<std::int64_t>(record.size()));
            positions.push_back(expert / kExperts);
            places.push_back({0, static_cast<std::int64_t>(file.size())});
            file.insert(file.end(), record.begin(), record.end());
        }
    }

    std::int64_t largest() const { return *std::max_element(sizes.begin(), sizes.end()); }
};

// Forecasts that are right now and then.
class Guesses : public Predictor {
  public:
    std::vector<Forecast> forecast(int position, const Routed& routed, int lookahead) override {
        std::vector<Forecast> forecasts;
        for (int i = 1; i <= lookahead; ++i) {
            const auto seed = static_cast<unsigned>(++num_forecasts_);
            forecasts.push_back({(position + i) % kLayers, routed.num_tokens, kExperts,
                                 testing::normal(routed.num_tokens * kExperts, seed)});
        }
        return forecasts;
    }

  private:
    int num_forecasts_ = 0;
};

// A cache of so many bytes, and what runs from it.
struct Streamed {
    UseStatistics statistics;
    std::unique_ptr<EvictionPolicy> policy = make_policy("lru");
    Residency residency;
    ExpertCache cache;
    MemoryReader reader;
    Loads loads;
    ExpertStream stream;
    // So fast that what is forecast is read, and a clock by which there is always time for a rehearsal.
    LayerPace pace{1e12, 1e-6, 0, [] { return 0.0; }};
    Guesses guesses;
    Speculation speculation;
    bool reads_ahead = false;
    std::function<Rehearsed(const float*)> rehearse;  // one layer, of a single token
    int num_checked = 0;

    Streamed(const Experts& experts, std::int64_t capacity_bytes, Verify verify = Verify::kFirst)
        : statistics(Catalog(experts.sizes, experts.positions, 0), 32.0),
          residency(statistics, *policy, capacity_bytes, 0.25),
          cache(residency),
          reader(experts.file),
          loads(cache, reader, experts.places, verify,
                [this](int, const std::uint8_t*, std::int64_t) { return ++num_checked > 0; }),
          stream(statistics, cache, loads, experts.layouts,
                 std::vector<ExpertStream::Layer>(kLayers, {Activation::kSilu, nullptr, nullptr}),
                 {false, [] {}}),
          speculation(residency, loads, guesses, pace, {static_cast<int>(kTopK), experts.sizes}) {}

    // Of the layers that follow.
    Rehearsal rehearsal(int position) {
        if (!rehearse) return {};
        return [this, left = kLayers - 1 - position](const float* added) mutable -> std::optional<Rehearsed> {
            if (left-- == 0) return std::nullopt;
            return rehearse(added);
        };
    }

    // Some passes over all layers, alternately with several tokens and with one.
    std::vector<float> outputs() {
        std::vector<float> all;
        for (int pass = 0; pass < 6; ++pass) {
            for (int position = 0; position < kLayers; ++position) run(pass, position, all);
        }
        return all;
    }

    void run(int pass, int position, std::vector<float>& all) {
        const std::int64_t tokens = pass % 2 == 0 ? kTokens : 1;
        const std::vector<float> x =
            testing::normal(tokens * kWidth, static_cast<unsigned>(100 * pass + position));
        const std::vector<float> weights =
            testing::normal(tokens * kTopK, static_cast<unsigned>(100 * pass + position + 50));
        std::vector<std::int32_t> ids;
        for (int t = 0; t < tokens; ++t) {
            ids.push_back((pass + t + position) % kExperts);
            ids.push_back((pass + t + position + 1 + t % 3) % kExperts);
        }
        std::vector<float> out(x.size());
        stream.run(position, {x.data(), ids.data(), weights.data(), tokens, kWidth, kTopK}, x.data(),
                   out.data(), reads_ahead ? &speculation : nullptr,
                   tokens == 1 ? rehearsal(position) : nullptr, {});
        all.insert(all.end(), out.begin(), out.end());
    }
};

}  // namespace

TEST(what_is_resident_changes_no_bit) {
    const Experts experts;
    const std::int64_t all_bytes = static_cast<std::int64_t>(experts.file.size());
    Streamed resident(experts, all_bytes);
    const std::vector<float> expected = resident.outputs();
    CHECK(resident.cache.holds_all());
    CHECK_EQUAL(resident.stream.num_misses(), kAll);
    for (const std::int64_t capacity : {experts.largest(), 3 * experts.largest(), all_bytes / 2}) {
        for (const int fails_every : {0, 4, -1}) {
            Streamed streamed(experts, capacity);
            streamed.reads_ahead = fails_every != 0;
            streamed.reader.fails_every = fails_every;
            int num_rehearsals = 0;
            streamed.rehearse = [&](const float*) {
                const auto seed = static_cast<unsigned>(++num_rehearsals);
                return Rehearsed{testing::normal(kWidth, seed),
                                 testing::normal(kExperts, seed),
                                 {num_rehearsals % kExperts, (num_rehearsals + 1) % kExperts},
                                 {0.5f, 0.5f}};
            };
            CHECK(streamed.outputs() == expected);
            CHECK((num_rehearsals > 0) == (streamed.reads_ahead && capacity > experts.largest()));
            CHECK(streamed.stream.num_misses() > kAll);
            CHECK(streamed.residency.used_bytes() <= capacity);
            CHECK_EQUAL(streamed.num_checked, kAll);
        }
    }
}

TEST(with_room_for_all_the_absent_are_read_one_by_one) {
    const Experts experts;
    const auto all_bytes = static_cast<std::int64_t>(experts.file.size());
    for (const int fails_every : {0, 4}) {
        for (const std::int64_t capacity : {all_bytes, all_bytes - 1}) {
            Streamed streamed(experts, capacity);
            streamed.reads_ahead = true;
            streamed.reader.fails_every = fails_every;
            std::vector<float> outputs;
            for (int i = 0; i <= kAll; ++i) streamed.run(1, 0, outputs);  // one token, always the same
            CHECK_EQUAL(streamed.stream.num_misses(), kTopK);
            const int num_resident = streamed.residency.num_resident();
            if (capacity < all_bytes) {
                CHECK(num_resident < kAll);
            } else if (fails_every == 0) {
                CHECK_EQUAL(num_resident, kAll);
            } else {  // those that failed wait until they are asked for
                CHECK(num_resident < kAll && num_resident >= kAll / 2);
            }
        }
    }
}

TEST(with_room_for_all_what_was_forecast_still_ends) {
    const Experts experts;
    Streamed streamed(experts, static_cast<std::int64_t>(experts.file.size()));
    streamed.reads_ahead = true;
    std::vector<float> outputs;
    streamed.run(1, 1, outputs);  // all that it chooses is there from here on
    const auto num_forecasts = [&] { return streamed.speculation.records(0)[1].num_forecasts; };
    CHECK_EQUAL(num_forecasts(), 0);
    streamed.run(1, 0, outputs);
    streamed.run(1, 1, outputs);
    CHECK_EQUAL(num_forecasts(), 1);
}

TEST(experts_of_unlike_widths_are_refused) {
    Experts experts;
    experts.layouts.back().width = 2 * kWidth;
    bool is_refused = false;
    try {
        const Streamed streamed(experts, experts.largest());
    } catch (const std::invalid_argument&) {
        is_refused = true;
    }
    CHECK(is_refused);
}

TEST(a_rehearsal_gets_what_is_there_already) {
    const Experts experts;
    Streamed streamed(experts, 6 * experts.largest());
    streamed.reads_ahead = true;
    const std::vector<float> x = testing::normal(kWidth, 1);
    std::vector<std::vector<float>> added;
    Rehearsed seen = {x, std::vector<float>(kExperts), {0, 3}, {0.25f, 0.5f}};
    streamed.rehearse = [&](const float* so_far) {
        added.emplace_back(so_far, so_far + kWidth);
        return seen;
    };
    const auto run = [&](int position, std::vector<std::int32_t> ids, std::vector<float> weights) {
        std::vector<float> out(kWidth);
        streamed.stream.run(position, {x.data(), ids.data(), weights.data(), 1, kWidth, kTopK}, x.data(),
                            out.data(), &streamed.speculation, streamed.rehearsal(position), {});
        return out;
    };
    const auto is_near = [](const std::vector<float>& a, const std::vector<float>& b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                          [](float u, float v) { return std::abs(u - v) < 1e-5f; });
    };
    const std::vector<float> of_first = run(1, {0, 1}, {0.25f, 0});
    CHECK(added == std::vector(1, std::vector<float>(kWidth)));  // nothing was there, and one layer follows
    added.clear();
    run(1, {0, 1}, {0.25f, 0.75f});
    CHECK(added.empty());  // all is there: nothing to wait for
    CHECK(!is_near(run(1, {2, 0}, {0.75f, 0.25f}), of_first));
    CHECK(added.size() == 1 && is_near(added[0], of_first));
    // Of a layer that is itself rehearsed as well: its expert 0 is there, and 3 is not.
    added.clear();
    run(0, {0, 1}, {0.5f, 0.5f});
    CHECK(added.size() == 2 && added[0] == std::vector<float>(kWidth) && is_near(added[1], of_first));
    for (const auto& spoil :
         std::vector<std::function<void()>>{[&] { seen.ids[1] = kExperts; }, [&] { seen.ids = {0}; },
                                            [&] { seen.x.pop_back(); }, [&] { seen.scores.pop_back(); }}) {
        const Rehearsed sound = seen;
        spoil();
        bool is_refused = false;
        try {
            run(0, {2, 3}, {0.5f, 0.5f});
        } catch (const std::invalid_argument&) {
            is_refused = true;
        }
        CHECK(is_refused);
        CHECK_EQUAL(streamed.loads.pending_bytes(), 0);
        seen = sound;
    }
}

TEST(records_are_compared_when_told_to) {
    const Experts experts;
    Streamed always(experts, experts.largest(), Verify::kAlways);
    Streamed never(experts, experts.largest(), Verify::kNever);
    CHECK(always.outputs() == never.outputs());
    CHECK(always.num_checked > kAll);
    CHECK_EQUAL(never.num_checked, 0);
}

TEST(a_read_that_was_cancelled_is_never_taken_for_one_that_arrived) {
    const Experts experts;
    Streamed sound(experts, 3 * experts.largest(), Verify::kNever);
    Streamed dropping(experts, 3 * experts.largest(), Verify::kNever);
    dropping.reader.drops_every = 3;
    CHECK(dropping.outputs() == sound.outputs());
}

TEST(storage_that_fails_for_good_leaves_nothing_under_way) {
    const Experts experts;
    Streamed expected(experts, 3 * experts.largest()), streamed(experts, 3 * experts.largest());
    std::vector<float> first, again, outputs;
    expected.run(0, 1, first);
    streamed.reader.is_broken = true;
    bool has_failed = false;
    try {
        streamed.run(0, 1, outputs);
    } catch (const LoadFailed& error) {
        has_failed = error.result.error == EIO && error.expert / kExperts == 1;
    }
    CHECK(has_failed);
    CHECK_EQUAL(streamed.loads.pending_bytes(), 0);
    CHECK_EQUAL(streamed.loads.demanded_bytes(), 0);
    CHECK_EQUAL(streamed.residency.used_bytes(), 0);
    streamed.reader.is_broken = false;
    streamed.run(0, 1, again);
    CHECK(again == first);
}

int main() { return edgemoe::testing::run_all(); }
