#include "core/suffix_index.h"

#include <algorithm>

namespace edgemoe {
namespace {

// Entries of the table at first; it doubles when there are as many tokens.
constexpr std::size_t kFirstSize = 1024;
// Odd, with its bits well spread (the golden ratio, Knuth 6.4).
constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15;

}  // namespace

SuffixIndex::SuffixIndex() : latest_(kFirstSize, -1) {}

void SuffixIndex::push(std::int32_t token) {
    if (tokens_.size() >= latest_.size()) widen();
    tokens_.push_back(token);
    before_.push_back(-1);
    link(static_cast<std::int32_t>(tokens_.size()));
}

SuffixIndex::Match SuffixIndex::find() const {
    Match best{0, kFewest - 1};
    std::int32_t end = before_.empty() ? -1 : before_.back();
    for (int places = 0; end >= 0 && places < kMostPlaces; end = before_[static_cast<std::size_t>(end) - 1]) {
        const std::int32_t length = common(end);
        if (length < kFewest) continue;  // another place of the same hash
        ++places;
        if (length > best.length) best = {end, length};
        if (length == kLongest) break;
    }
    return best.length >= kFewest ? best : Match{};
}

// How many tokens before `end` are the text's last ones, up to kLongest.
std::int32_t SuffixIndex::common(std::int32_t end) const {
    const std::int32_t most = std::min(kLongest, end);
    const std::int32_t *here = tokens_.data() + tokens_.size(), *there = tokens_.data() + end;
    std::int32_t length = 0;
    while (length < most && here[-1 - length] == there[-1 - length]) ++length;
    return length;
}

// Enters the place that ends here.
void SuffixIndex::link(std::int32_t end) {
    if (end < kFewest) return;
    std::uint64_t hashed = 0;
    for (std::int32_t i = end - kFewest; i < end; ++i) {
        const auto token = static_cast<std::uint64_t>(tokens_[static_cast<std::size_t>(i)]);
        hashed = (hashed + token + 1) * kMultiplier;
    }
    std::int32_t& latest = latest_[(hashed >> 32) % latest_.size()];
    before_[static_cast<std::size_t>(end) - 1] = latest;
    latest = end;
}

void SuffixIndex::widen() {
    latest_.assign(2 * latest_.size(), -1);
    for (std::size_t end = 1; end <= tokens_.size(); ++end) link(static_cast<std::int32_t>(end));
}

}  // namespace edgemoe
