// What readers of blocks share: where the numbers of one row of a group go.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/layout.h"

namespace edgemoe {

// Where the scales of one row and block of columns go.
class ScaleRow {
  public:
    ScaleRow(Format f, std::uint8_t* group, std::int64_t first_block, std::int64_t row)
        : format_(f), group_(group), first_block_(first_block), row_(row) {}

    std::uint8_t* block(int i) const { return group_ + block_scale_offset(format_, first_block_ + i); }

    // Number i of those of one f16 a row; says whether it is finite.
    bool put_shared(int i, std::uint16_t half) const {
        return put_half(group_ + shared_scale_offset(format_, first_block_) + 2 * kRowGroup * i, half);
    }
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

    Format format_;
    std::uint8_t* group_;
    std::int64_t first_block_, row_;
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
