// What readers of blocks share: where the numbers of one row of a group go.
#pragma once

#include <cstdint>
#include <cstring>

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
    void put_six_bits(int block_number, int first, int second) const {
        put_byte(block_number, 0, static_cast<std::uint8_t>(first | second >> 4 << 6));
        put_nibble(block_number, kRowGroup, second);
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

// Packs one row of blocks into its place in a group whose bytes are zeros; says whether all weights are
// finite.
using PackRow = bool(const std::uint8_t* blocks, std::int64_t cols, std::uint8_t* group, std::int64_t row);

// That of a format with a grid (grid_blocks.cpp).
PackRow* grid_row_packer(Format f);

}  // namespace edgemoe
