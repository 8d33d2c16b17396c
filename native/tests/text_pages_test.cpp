// Texts that begin alike share pages, and none sees what another writes.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/text_pages.h"
#include "tests/check.h"

namespace edgemoe {
namespace {

// Two heads of keys, and of values half as long: 64 and 32 bytes a token.
constexpr std::int64_t kHeads = 2, kKey = 64, kValue = 32;

struct Text {
    std::int64_t slots;
    TextPages pages;
    std::vector<std::uint8_t*> strips;
    std::vector<std::uint8_t> tokens;

    explicit Text(const std::shared_ptr<PageFile>& file) : slots(64 * page() / kKey), pages(file) {
        for (const std::int64_t bytes : {kKey, kValue}) {
            std::uint8_t* data = pages.add(kHeads, slots, bytes);
            for (std::int64_t head = 0; head < kHeads; ++head) strips.push_back(data + head * slots * bytes);
        }
    }
    static std::int64_t page() { return ::sysconf(_SC_PAGESIZE); }
    static std::int64_t width(std::size_t strip) { return strip < kHeads ? kKey : kValue; }

    void write(std::int64_t count, std::uint8_t token) {
        const auto from = static_cast<std::int64_t>(tokens.size());
        for (std::size_t i = 0; i < strips.size(); ++i)
            for (std::int64_t at = from * width(i); at < (from + count) * width(i); ++at)
                strips[i][at] = token;
        tokens.insert(tokens.end(), static_cast<std::size_t>(count), token);
    }
    void begin_as(const Text& other, std::size_t count) {
        pages.begin_as(other.pages, static_cast<std::int64_t>(count));
        tokens.assign(other.tokens.begin(), other.tokens.begin() + static_cast<std::ptrdiff_t>(count));
    }
    void take_back(std::size_t count) {
        pages.take_back(static_cast<std::int64_t>(count));
        tokens.resize(count);
    }
    void check() const {
        for (std::size_t i = 0; i < strips.size(); ++i)
            for (std::size_t at = 0; at < tokens.size() * static_cast<std::size_t>(width(i)); ++at)
                CHECK_EQUAL(int{strips[i][at]}, int{tokens[at / static_cast<std::size_t>(width(i))]});
    }
};

// Tokens that fill so many pages of a head's keys.
std::int64_t filling(std::int64_t pages) { return pages * Text::page() / kKey; }
std::size_t count(std::int64_t tokens) { return static_cast<std::size_t>(tokens); }

TEST(a_beginning_is_in_memory_once) {
    const auto file = std::make_shared<PageFile>();
    if (!file->is_there()) return;
    Text first(file), second(file);
    first.write(filling(20) + 3, 1);
    const std::int64_t alone = file->resident_bytes();
    CHECK_EQUAL(alone, Text::page() * kHeads * (21 + 11));
    second.begin_as(first, count(filling(20) + 1));
    CHECK_EQUAL(file->resident_bytes() - alone, Text::page() * kHeads * 2);  // what it begins in each
    second.write(5, 2);
    first.write(5, 3);
    first.check();
    second.check();
    CHECK_EQUAL(TextPages::mapped_again_bytes(), Text::page() * kHeads * (20 + 10));
}

TEST(who_goes_back_into_a_shared_beginning_writes_to_pages_of_its_own) {
    const auto file = std::make_shared<PageFile>();
    Text first(file), second(file), third(file);
    first.write(filling(20), 1);
    second.begin_as(first, count(filling(18) + 7));
    third.begin_as(second, count(filling(16)));
    first.take_back(count(filling(9) + 1));  // the owner
    first.write(filling(4), 2);
    second.take_back(count(filling(10) + 2));
    second.write(filling(3), 3);
    third.write(filling(2), 4);
    for (const Text* text : {&first, &second, &third}) text->check();
}

TEST(pages_live_as_long_as_a_text_that_has_them) {
    const auto file = std::make_shared<PageFile>();
    if (!file->is_there()) return;
    Text last(file);
    {
        Text first(file), second(file), third(file);
        first.write(filling(40), 1);
        second.begin_as(first, count(filling(30)));
        second.write(filling(2), 2);
        third.begin_as(second, count(filling(32)));
        last.begin_as(third, count(filling(20)));
    }
    CHECK_EQUAL(file->resident_bytes(), Text::page() * kHeads * (20 + 10));
    last.check();
    last.take_back(0);
    CHECK_EQUAL(file->resident_bytes(), 0);
}

TEST(of_a_beginning_without_its_text_only_what_is_used_stays) {
    const auto file = std::make_shared<PageFile>();
    if (!file->is_there()) return;
    auto first = std::make_unique<Text>(file), longer = std::make_unique<Text>(file);
    Text shorter(file);
    first->write(filling(40), 1);
    longer->begin_as(*first, count(filling(30)));
    shorter.begin_as(*first, count(filling(20)));
    first.reset();
    CHECK_EQUAL(file->resident_bytes(), Text::page() * kHeads * (30 + 15));
    longer.reset();
    CHECK_EQUAL(file->resident_bytes(), Text::page() * kHeads * (20 + 10));
    shorter.check();
}

TEST(what_is_short_is_copied) {
    const auto file = std::make_shared<PageFile>();
    Text first(file), second(file);
    first.write(filling(3), 1);
    second.begin_as(first, count(filling(3)));
    CHECK_EQUAL(second.pages.use().shares.size(), 0U);
    first.take_back(0);
    first.write(filling(3), 2);
    second.check();
}

TEST(without_a_file_beginnings_are_copied) {
    rlimit before{};
    CHECK_EQUAL(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit low{1 << 20, before.rlim_max};
    std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &low);
    const auto file = std::make_shared<PageFile>();
    ::setrlimit(RLIMIT_FSIZE, &before);
    CHECK(!file->is_there());
    Text first(file), second(file);
    first.write(filling(20), 1);
    second.begin_as(first, count(filling(10) + 3));
    first.take_back(count(filling(2)));
    first.write(filling(3), 2);
    second.take_back(count(filling(9)));
    second.pages.trim(filling(9));
    first.check();
    second.check();
    CHECK_EQUAL(int{second.strips[0][filling(9) * kKey]}, 0);
    CHECK_EQUAL(second.pages.use().shares.size(), 0U);
}

TEST(trimming_leaves_what_others_have) {
    const auto file = std::make_shared<PageFile>();
    if (!file->is_there()) return;
    Text first(file), second(file);
    first.write(filling(40), 1);
    second.begin_as(first, count(filling(20)));
    first.take_back(count(filling(21)));
    first.pages.trim(filling(21));
    CHECK_EQUAL(file->resident_bytes(), Text::page() * kHeads * (21 + 11));
    first.check();
    second.check();
}

}  // namespace
}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
