// What readers of blocks share: where the scales of a row of a group go, and the order in which rows are
// packed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "core/thread_pool.h"
#include "kernels/layout.h"

namespace edgemoe {

// Where the scales of one row and block of columns go.
class ScaleRow {
  public:
    // Of the blocks from `first_block` on, which share a block of another engine, so 256 columns at most.
    [[gnu::always_inline]] ScaleRow(Format f, std::uint8_t* group, std::int64_t first_block, std::int64_t row)
        : block_bytes_(block_scale_bytes(f)),
          group_(group),
          shared_(shared_scale_bytes(f) == 0 ? nullptr : group + shared_scale_offset(f, first_block)),
          first_(group + block_scale_offset(f, first_block)),
          row_(row) {}

    std::uint8_t* block(int i) const { return first_ + i * block_bytes_; }

    // Number i of those of one f16 a row; says whether it is finite.
    bool put_shared(int i, std::uint16_t half) const { return put_half(shared_ + 2 * kRowGroup * i, half); }
    bool put_block_half(int block_number, int i, std::uint16_t half) const {
        return put_half(block(block_number) + 2 * kRowGroup * i, half);
    }
    void put_byte(int block_number, int i, std::uint8_t byte) const {
        block(block_number)[kRowGroup * i + row_] = byte;
    }
    // A nibble of each row, the 8 bytes of all being `offset` into those of the block.
    void put_nibble(int block_number, std::int64_t offset, int value) const {
        std::uint8_t& byte = block(block_number)[offset + row_ % 8];
        byte = static_cast<std::uint8_t>(byte | (value & 15) << (row_ < 8 ? 0 : 4));
    }
    // What all weights of the row are multiplied with.
    void put_row_factor(float factor) const { std::memcpy(group_ + 4 * row_, &factor, sizeof factor); }

  private:
    bool put_half(std::uint8_t* halves, std::uint16_t half) const {
        std::memcpy(halves + 2 * row_, &half, sizeof half);
        return (half & 0x7c00) != 0x7c00;
    }

    std::int64_t block_bytes_;
    std::uint8_t *group_, *shared_, *first_;
    std::int64_t row_;
};

inline std::uint16_t u16_at(const std::uint8_t* p) {
    std::uint16_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Up to this exponent of an MXFP4 block 6, the largest number, times the power of two is finite.
inline constexpr std::uint8_t kFiniteMxfp4 = 252;

// Whether the 32 weights of an MXFP4 block are finite: a power of two plus 127, and codes of 4 bits.
inline bool is_finite_mxfp4(std::uint8_t exponent, const std::uint8_t* codes) {
    if (exponent <= kFiniteMxfp4) return true;
    if (exponent == 255) return false;
    const int largest = exponent == 253 ? 5 : 3;  // codes of 3 and 1.5: times 2^126, 2^127
    return std::all_of(codes, codes + kBlock, [=](std::uint8_t code) { return (code & 7) <= largest; });
}

// Rows that are packed together: four of theirs make 16 bytes of a chunk.
inline constexpr std::int64_t kRowsTogether = 4;

// Packs `count` rows of blocks, kRowsTogether at most, `row_bytes` each, into their place in a group, from
// `row` on, whose bytes are zeros. Returns how many of them, from the first on, have finite weights alone.
using PackRows = std::int64_t(const std::uint8_t* blocks, std::int64_t row_bytes, std::int64_t count,
                              std::int64_t cols, std::uint8_t* group, std::int64_t row);

// That of a format with a grid (grid_blocks.cpp).
PackRows* grid_row_packer(Format f);

// That of a format whose blocks go to their places four rows at a time (four_rows.cpp), or nullptr.
PackRows* four_row_packer(Format f);

// Makes zeros of what packing so many rows of a group leaves or adds bits to. Codes of whole groups are all
// written, but for those of grids, which are put together.
inline void clear_group(Format format, std::int64_t cols, std::int64_t num_rows, std::uint8_t* group) {
    const bool is_whole = num_rows == kRowGroup && !has_grid(format);
    const std::int64_t count = is_whole ? group_header_bytes(format, cols) : group_bytes(format, cols);
    std::memset(group, 0, static_cast<std::size_t>(count));
}

// Calls pack(first, count, group, row) for the rows [first, first + count) of [begin, end), from `row` of
// their group on, as of PackRows. Returns the first row with weights that are not finite, or `end`.
template <typename Pack>
std::int64_t pack_range(std::int64_t begin, std::int64_t end, std::int64_t cols, Format format,
                        std::uint8_t* packed, const Pack& pack) {
    std::int64_t first_bad = end;
    for (std::int64_t row = begin; row < end; row += kRowsTogether) {
        std::uint8_t* group = packed + row / kRowGroup * group_bytes(format, cols);
        const std::int64_t place = row % kRowGroup, count = std::min(kRowsTogether, end - row);
        if (place == 0) clear_group(format, cols, std::min(kRowGroup, end - row), group);
        const std::int64_t num_finite = pack(row, count, group, place);
        if (num_finite < count) first_bad = std::min(first_bad, row + num_finite);
    }
    return first_bad;
}

// The same for all rows on all threads; -1 where all weights are finite.
template <typename Pack>
std::int64_t pack_all(std::int64_t rows, std::int64_t cols, Format format, std::uint8_t* packed,
                      const Pack& pack) {
    std::atomic<std::int64_t> first_bad{rows};
    parallel_for(num_groups(rows), 1, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t last = std::min(end * kRowGroup, rows);
        const std::int64_t bad = pack_range(begin * kRowGroup, last, cols, format, packed, pack);
        std::int64_t seen = first_bad.load();
        while (bad < std::min(seen, last) && !first_bad.compare_exchange_weak(seen, bad)) {
        }
    });
    return first_bad < rows ? first_bad.load() : -1;
}

}  // namespace edgemoe
