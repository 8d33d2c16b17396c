// Float operations without Python: numbers worked by hand, and bits that must not depend on how the work
// is cut. The comparison with the NumPy meaning is in tests/native/test_ops.py.
#include "ops/ops.h"
#include "ops/router.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/half.h"
#include "kernels/kernels.h"
#include "tests/check.h"
#include "tests/random.h"

namespace edgemoe {
namespace {

using testing::normal;

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(rms_norm_by_hand) {
    const float x[] = {1, 7}, weight[] = {1, 2};  // mean square 25
    float out[2];
    rms_norm(x, 1, 2, weight, 0.0f, out);
    CHECK(std::fabs(out[0] - 0.2f) < 1e-7f);
    CHECK(std::fabs(out[1] - 2.8f) < 1e-6f);
}

TEST(rope_by_hand_turns_a_pair_by_a_right_angle) {
    float x[] = {1, 2, 3, 4, 5};  // one head of 5, of which 4 are rotated
    const float cos[] = {0, 1}, sin[] = {1, 0};
    rope(x, 1, 1, 5, cos, sin, 2);
    const float expected[] = {-3, 2, 1, 4, 5};
    for (int i = 0; i < 5; ++i) CHECK_EQUAL(x[i], expected[i]);
}

TEST(store_kv_writes_heads_apart) {
    const float x[] = {1, 2, 3, 4};  // one token, two heads of two
    float cache[12] = {};            // two heads, three slots
    store_kv(cache, {2, 3, 2, false}, x, 1, 1);
    const float expected[] = {0, 0, 1, 2, 0, 0, 0, 0, 3, 4, 0, 0};
    for (int i = 0; i < 12; ++i) CHECK_EQUAL(cache[i], expected[i]);
}

TEST(every_half_survives_the_way_to_float_and_back) {
    for (unsigned bits = 0; bits < 0x10000; ++bits) {
        const auto half = static_cast<std::uint16_t>(bits);
        if ((half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0) continue;  // not a number
        CHECK_EQUAL(f16_of_float(float_of_f16(half)), half);
    }
}

TEST(route_by_hand_with_a_tie) {
    const float logits[] = {std::log(1.0f), std::log(4.0f), std::log(2.0f), std::log(1.0f)};
    std::int32_t ids[4];
    float weights[4];
    const Router router = {4, 4};
    float choice[4];
    std::copy_n(logits, 4, choice);
    router.choice_scores(choice);
    router.choose(logits, choice, ids, weights);
    const std::int32_t expected_ids[] = {1, 2, 0, 3};
    const float expected[] = {0.5f, 0.25f, 0.125f, 0.125f};
    for (int k = 0; k < 4; ++k) {
        CHECK_EQUAL(ids[k], expected_ids[k]);
        CHECK(std::fabs(weights[k] - expected[k]) < 1e-6f);
    }
}

TEST(groups_are_kept_by_their_two_best_and_a_bias_only_chooses) {
    // Sigmoids are 0.5 everywhere; the biases alone choose, and groups of two by their sums.
    const float logits[] = {0, 0, 0, 0, 0, 0}, bias[] = {0.9f, 0, 0.4f, 0.6f, 0.3f, 0.2f};
    Router router = {6, 2, Score::kSigmoid, bias};
    router.num_groups = 3;
    router.kept_groups = 1;
    router.renormalize = true;
    router.scale = 3;
    float choice[6], weights[2];
    std::int32_t ids[2];
    std::copy_n(logits, 6, choice);
    router.choice_scores(choice);
    router.choose(logits, choice, ids, weights);
    CHECK_EQUAL(ids[0], 3);
    CHECK_EQUAL(ids[1], 2);
    CHECK_EQUAL(weights[0], 1.5f);
    router.groups_by_highest = true;
    std::copy_n(logits, 6, choice);
    router.choice_scores(choice);
    router.choose(logits, choice, ids, weights);
    CHECK_EQUAL(ids[0], 0);
    CHECK_EQUAL(ids[1], 1);
}

TEST(combine_by_hand) {
    const float parts[] = {1, 2, 10, 20}, weights[] = {0.5f, 0.25f};
    float out[2];
    combine(parts, nullptr, weights, 1, 2, 2, out);
    CHECK_EQUAL(out[0], 3.0f);
    CHECK_EQUAL(out[1], 6.0f);
}

struct Case {
    std::int64_t num_tokens, num_heads, num_kv_heads, head_dim, start, window;
    bool is_f16;
};

struct Inputs {
    std::vector<float> q, keys, values;
    KvLayout layout;

    explicit Inputs(const Case& c)
        : layout{c.num_kv_heads, c.start + c.num_tokens + 3, c.head_dim, c.is_f16} {
        const std::int64_t num_cached = layout.num_heads * layout.num_slots * layout.head_dim;
        q = normal(c.num_tokens * c.num_heads * c.head_dim, 1);
        // Any floats make a valid float cache; for halves, write them as such.
        keys = normal(num_cached, 2);
        values = normal(num_cached, 3);
        if (!c.is_f16) return;
        for (auto* cache : {&keys, &values}) {
            std::vector<std::uint16_t> halves;
            for (const float value : *cache) halves.push_back(f16_of_float(value));
            std::memcpy(cache->data(), halves.data(), halves.size() * sizeof(halves[0]));
        }
    }
};

std::vector<float> attend_in_chunks(const Inputs& in, const Case& c, std::int64_t chunk) {
    std::vector<float> out(in.q.size());
    const std::int64_t row = c.num_heads * c.head_dim;
    for (std::int64_t t = 0; t < c.num_tokens; t += chunk) {
        const Attention a = {std::min(chunk, c.num_tokens - t), c.num_heads, c.start + t, c.window, 0.3f};
        attention(in.q.data() + t * row, in.keys.data(), in.values.data(), in.layout, a,
                  out.data() + t * row);
    }
    return out;
}

TEST(attention_bits_do_not_depend_on_chunks_or_threads) {
    const int threads_before = num_threads();
    for (const Kernels* kernels : available_kernels()) {
        force_kernels(kernels->name);
        for (const Case& c : {Case{37, 4, 2, 16, 0, 0, true}, Case{37, 6, 1, 40, 90, 5, false},
                              Case{300, 3, 3, 7, 11, 0, true}}) {
            const Inputs in(c);
            set_num_threads(1);
            const auto whole = attend_in_chunks(in, c, c.num_tokens);
            for (const int count : {1, 2, 5}) {
                set_num_threads(count);
                for (const std::int64_t chunk : {std::int64_t{1}, std::int64_t{8}, c.num_tokens}) {
                    CHECK(same_bits(attend_in_chunks(in, c, chunk), whole));
                }
            }
        }
    }
    set_num_threads(threads_before);
}

TEST(attention_of_one_position_is_its_value) {
    const Case c = {1, 2, 1, 9, 0, 0, false};
    const Inputs in(c);
    const auto out = attend_in_chunks(in, c, 1);
    for (std::size_t i = 0; i < out.size(); ++i) CHECK_EQUAL(out[i], in.values[i % 9]);
}

TEST(attention_survives_scores_that_overflow_an_exponential) {
    // The scores are 1000, 999 and -1000: only their differences may be exponentiated.
    const float q[] = {10}, keys[] = {100, 99.9f, -100}, values[] = {2, 4, 1000};
    float out;
    attention(q, keys, values, {1, 3, 1, false}, {1, 1, 2, 0, 1.0f}, &out);
    const float share = std::exp(-1.0f);
    // A score of 1000 has steps of 6e-5, and the result moves by at most half of that times two.
    CHECK(std::fabs(out - (2 + 4 * share) / (1 + share)) < 1e-4f);
}

TEST(parallel_for_covers_each_index_once_whatever_the_pool) {
    const int threads_before = num_threads();
    for (const int count : {1, 2, 7, 3}) {
        set_num_threads(count);
        for (const std::int64_t n : {0, 1, 63, 1000}) {
            std::vector<int> visits(static_cast<std::size_t>(n));
            parallel_for(n, 4, [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
            });
            for (const int v : visits) CHECK_EQUAL(v, 1);
        }
    }
    set_num_threads(threads_before);
}

TEST(combine_finds_parts_at_their_places) {
    constexpr std::int64_t kTokens = 3, kTopK = 2, kWidth = 40;
    const std::vector<float> parts = testing::normal(kTokens * kTopK * kWidth, 6);
    const std::vector<float> weights = testing::normal(kTokens * kTopK, 7);
    const std::int32_t places[] = {4, 1, 5, 0, 3, 2};
    std::vector<float> in_order;
    for (const std::int32_t place : places) {
        in_order.insert(in_order.end(), parts.begin() + place * kWidth, parts.begin() + (place + 1) * kWidth);
    }
    std::vector<float> expected(kTokens * kWidth), out(kTokens * kWidth);
    combine(in_order.data(), nullptr, weights.data(), kTokens, kTopK, kWidth, expected.data());
    combine(parts.data(), places, weights.data(), kTokens, kTopK, kWidth, out.data());
    CHECK(out == expected);
}

TEST(tasks_run_aside_once_each_whether_a_worker_is_awake_or_not) {
    const int before = num_threads();
    for (const int count : {1, 2, 4}) {
        set_num_threads(count);
        std::atomic<int> num_runs = 0, sum = 0;
        for (int round = 1; round <= 300; ++round) {
            if (round % 3 == 0) parallel_for(64, 1, [&](std::int64_t b, std::int64_t e) { sum += e - b; });
            // Long enough now and then for all workers to fall asleep.
            if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
            run_aside([&] { ++num_runs; });
            if (round % 2 == 0) {
                finish_aside();
                CHECK_EQUAL(num_runs.load(), round);
            }
        }
        run_aside([&] { ++num_runs; });
        set_num_threads(count + 1);
        parallel_for(64, 1, [](std::int64_t, std::int64_t) {});  // the pool is made anew
        CHECK_EQUAL(num_runs.load(), 301);
        CHECK_EQUAL(sum.load(), 6400);
    }
    set_num_threads(before);
}

}  // namespace
}  // namespace edgemoe

TEST(the_largest_come_first_and_of_equals_the_lower_place) {
    const float values[] = {1, 5, -2, 5, 3};
    CHECK(edgemoe::largest(values, 5, 4) == std::vector<std::int32_t>({1, 3, 4, 0}));
    CHECK(edgemoe::largest(values, 5, 0).empty());
}

int main() { return edgemoe::testing::run_all(); }
