#include "core/read_memory.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "core/thread_pool.h"

namespace edgemoe {
namespace {

constexpr std::int64_t kWordsPerPiece = 8192;  // 64 KiB
constexpr std::int64_t kLineWords = 8;
// As far ahead as the products read: beyond the page at which the hardware's own prefetch stops.
constexpr std::int64_t kWordsAhead = 3072 / 8;

std::uint64_t sum(const std::uint64_t* words, std::int64_t num_words) {
    std::uint64_t partial[kLineWords] = {};
    std::int64_t i = 0;
    for (; i + kLineWords <= num_words; i += kLineWords) {
        __builtin_prefetch(words + i + kWordsAhead);
        for (std::int64_t j = 0; j < kLineWords; ++j) partial[j] += words[i + j];
    }
    for (; i < num_words; ++i) partial[0] += words[i];
    return std::accumulate(partial, partial + kLineWords, std::uint64_t{0});
}

}  // namespace

std::uint64_t read_memory(const std::uint64_t* words, std::int64_t num_words) {
    std::atomic<std::uint64_t> total{0};
    const std::int64_t num_pieces = (num_words + kWordsPerPiece - 1) / kWordsPerPiece;
    parallel_for(num_pieces, 1, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin * kWordsPerPiece, last = std::min(end * kWordsPerPiece, num_words);
        total += sum(words + first, last - first);
    });
    return total;
}

}  // namespace edgemoe
