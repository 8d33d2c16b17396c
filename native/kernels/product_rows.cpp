#include "kernels/product_rows.h"

#include <cstring>
#include <utility>

#include "core/thread_pool.h"
#include "kernels/matmul.h"

namespace edgemoe {
namespace {

// Weight bytes times tokens that a thread takes at least: below some 5 us of work, waking another costs more
// than it saves. Small experts stay on the calling thread.
constexpr std::int64_t kBytesPerPiece = 128 * 1024;

AlignedBytes aligned_bytes(std::int64_t count) {
    const auto size = static_cast<std::size_t>(count);
    return AlignedBytes(static_cast<std::uint8_t*>(::operator new(size, std::align_val_t{kAlignment})));
}

// Zeros for the rows that the last tile lacks.
void clear_room(std::int64_t num_rows, std::int64_t cols, std::uint8_t* blocks) {
    const std::int64_t row_bytes = cols / kBlock * kTokenBlockBytes, room = rounded_bytes(num_rows, cols);
    const std::int64_t whole = num_rows / kLargestTile * kLargestTile;
    if (room == num_rows * row_bytes) return;
    std::memset(blocks + whole * row_bytes, 0, static_cast<std::size_t>(room - whole * row_bytes));
}

}  // namespace

QuantizedRows::QuantizedRows(const float* x, std::int64_t num_tokens, std::int64_t cols, bool needs_codes,
                             bool are_apart)
    : activations_{x, nullptr, num_tokens, cols, are_apart} {
    if (!needs_codes) return;
    blocks_ = aligned_bytes(rounded_bytes(num_tokens, cols, are_apart));
    if (!are_apart) clear_room(num_tokens, cols, blocks_.get());
    const Kernels& kernels = active_kernels();
    parallel_for(num_tokens, kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
        kernels.quantize_rows(activations_, begin, end, blocks_.get());
    });
    activations_.blocks = blocks_.get();
}

Activations QuantizedRows::row(std::int64_t t) const {
    const Activations& all = activations_;
    const std::int64_t offset = t * all.cols / kBlock * kTokenBlockBytes;
    const std::uint8_t* blocks = all.blocks != nullptr ? all.blocks + offset : nullptr;
    return {all.values + t * all.cols, blocks, 1, all.cols, true};
}

PartedRows::PartedRows(const float* values, std::int64_t cols, std::vector<std::int64_t> starts,
                       bool needs_codes)
    : values_(values), cols_(cols), starts_(std::move(starts)) {
    if (!needs_codes) return;
    std::int64_t num_bytes = 0;
    for (std::size_t p = 0; p + 1 < starts_.size(); ++p) {
        places_.push_back(num_bytes);
        num_bytes += rounded_bytes(starts_[p + 1] - starts_[p], cols);
    }
    blocks_ = aligned_bytes(num_bytes);
    const Kernels& kernels = active_kernels();
    parallel_for(std::ssize(places_), kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
        for (auto p = static_cast<std::size_t>(begin); p < static_cast<std::size_t>(end); ++p) {
            const std::int64_t num_rows = starts_[p + 1] - starts_[p];
            std::uint8_t* const to = blocks_.get() + places_[p];
            clear_room(num_rows, cols_, to);
            kernels.quantize_rows(part(p), 0, num_rows, to);
        }
    });
}

Activations PartedRows::part(std::size_t p) const {
    const std::uint8_t* blocks = blocks_ != nullptr ? blocks_.get() + places_[p] : nullptr;
    return {values_ + starts_[p] * cols_, blocks, starts_[p + 1] - starts_[p], cols_, false};
}

std::int64_t parted_bytes(std::int64_t num_rows, std::int64_t cols) {
    return 2 * num_rows * (cols / kBlock) * kTokenBlockBytes;
}

std::int64_t group_grain(const Matrix& w, std::int64_t num_tokens) {
    return std::max<std::int64_t>(1, kBytesPerPiece / (group_bytes(w.format, w.cols) * num_tokens));
}

}  // namespace edgemoe
