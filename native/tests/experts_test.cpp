// Who leaves, by hand, under the sanitizers. tests/experts/test_residency.py compares any course of events.
#include <map>
#include <optional>
#include <random>
#include <vector>

#include "experts/policies.h"
#include "experts/residency.h"
#include "experts/use_statistics.h"
#include "tests/check.h"

using namespace edgemoe;

namespace {

constexpr std::int64_t kPage = 4096;

// Three layers of two experts each: 0, 1 | 2, 3 | 4, 5.
UseStatistics new_statistics(int first_step = 0) {
    return {Catalog(std::vector<std::int64_t>(6, kPage), {0, 0, 1, 1, 2, 2}, first_step), 32.0};
}

bool is_refused(std::vector<int> positions, int first_step) {
    try {
        Catalog(std::vector<std::int64_t>(2, kPage), std::move(positions), first_step);
    } catch (const std::invalid_argument&) {
        return true;
    }
    return false;
}

}  // namespace

TEST(numbers_of_the_chosen_ascend_each_once) {
    UseStatistics statistics = new_statistics();
    const std::int32_t ids[] = {1, 0, 1, 1};
    const std::vector<int> chosen = statistics.observe(1, ids, 2, 2);
    CHECK((chosen == std::vector<int>{2, 3}));
    CHECK_EQUAL(statistics.last_use(3), 1);
    CHECK(statistics.frequency(3) > 2.9 * statistics.frequency(2));
}

TEST(layers_are_counted_until_they_run_again) {
    UseStatistics statistics = new_statistics(1);
    const std::int32_t id = 0;
    statistics.observe(0, &id, 1, 1);
    CHECK_EQUAL(statistics.layers_until(0), 3);
    CHECK_EQUAL(statistics.layers_until(4), 2);
    statistics.observe(2, &id, 1, 1);
    CHECK_EQUAL(statistics.layers_until(2), 1);
    CHECK_EQUAL(statistics.layers_until(4), 2);
    CHECK_EQUAL(statistics.num_over(), 2);
}

TEST(the_cheapest_leaves_unless_it_is_pinned) {
    UseStatistics statistics = new_statistics();
    const auto policy = make_policy("edgemoe");
    Residency residency(statistics, *policy, 2 * kPage, 0.0);
    const std::int32_t id = 0;
    for (int position = 0; position < 2; ++position) {
        statistics.observe(position, &id, 1, 1);
        CHECK(residency.take(2 * position, true)->empty());
        residency.admit(2 * position);
    }
    // Used once each; layer 0 runs in two layers, layer 1 in three.
    residency.pin({2}, true);
    CHECK((residency.take(4, true) == std::vector<int>{0}));
    residency.admit(4);
    residency.pin({4}, true);
    CHECK(!residency.take(5, true));
    CHECK_EQUAL(residency.used_bytes(), 2 * kPage);
    residency.unpin_all();
    CHECK((residency.missing({0, 2, 4}) == std::vector<int>{0}));
}

TEST(records_of_many_sizes_lie_side_by_side) {
    // Three layers of eight experts of one to seven pages, in the room for sixteen pages.
    std::vector<std::int64_t> sizes;
    std::vector<int> positions;
    for (int e = 0; e < 24; ++e) {
        sizes.push_back((1 + e * 5 % 7) * kPage);
        positions.push_back(e / 8);
    }
    UseStatistics statistics(Catalog(sizes, positions, 0), 32.0);
    const auto policy = make_policy("edgemoe");
    Residency residency(statistics, *policy, 16 * kPage, 0.0);
    std::mt19937 random(1);
    int num_apart = 0;
    for (int step = 0; step < 3000; ++step) {
        const int expert = static_cast<int>(random() % 24);
        const std::int32_t id = expert % 8;
        statistics.observe(expert / 8, &id, 1, 1);
        if (random() % 3 == 0) residency.unpin_all();
        if (residency.is_resident(expert)) continue;
        if (!residency.take(expert, random() % 2 == 0)) continue;
        if (random() % 8 == 0) {
            residency.drop(expert);
        } else {
            residency.admit(expert);
            if (random() % 2 == 0) residency.pin({expert}, true);
        }
        // Whose each page is; -1: a hole's.
        std::map<std::int64_t, int> owners;
        std::int64_t bytes = 0;
        for (int e = 0; e < 24; ++e) {
            if (!residency.is_resident(e)) continue;
            bytes += sizes[static_cast<std::size_t>(e)];
            if (!residency.places().contains(e)) {
                ++num_apart;
                continue;
            }
            const std::int64_t begin = residency.places().offset(e);
            for (std::int64_t at = begin; at < begin + sizes[static_cast<std::size_t>(e)]; at += kPage) {
                CHECK(owners.emplace(at, e).second);
            }
        }
        for (const auto& [begin, num_bytes] : residency.places().holes()) {
            for (std::int64_t at = begin; at < begin + num_bytes; at += kPage) {
                CHECK(owners.emplace(at, -1).second);
            }
        }
        CHECK_EQUAL(std::ssize(owners), 16);
        CHECK(owners.begin()->first == 0 && owners.rbegin()->first == 15 * kPage);
        CHECK_EQUAL(residency.used_bytes(), bytes);
        CHECK(bytes <= 16 * kPage);
    }
    CHECK(num_apart > 0);
}

TEST(impossible_catalogs_are_refused) {
    CHECK(is_refused({0, 2}, 0));
    CHECK(is_refused({1, 1}, 0));
    CHECK(is_refused({0}, 0));
    CHECK(is_refused({0, 0}, 1));
    CHECK(!is_refused({0, 1}, 1));
}

int main() { return edgemoe::testing::run_all(); }
