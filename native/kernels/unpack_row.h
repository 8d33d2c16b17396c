// What writers of blocks share: where the numbers of one row of a group lie; pack_rows.h is the inverse.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/decode.h"
#include "kernels/layout.h"

namespace edgemoe {

// The scales of one row from a block of 32 columns on.
class RowScales {
  public:
    RowScales(Format f, const std::uint8_t* group, std::int64_t first_block, std::int64_t row)
        : format_(f), group_(group), first_block_(first_block), row_(row) {}

    const std::uint8_t* block(int i) const { return group_ + block_scale_offset(format_, first_block_ + i); }

    std::uint16_t shared(int i) const {
        return load_u16(group_ + shared_scale_offset(format_, first_block_) + 2 * kRowGroup * i + 2 * row_);
    }
    std::uint16_t block_half(int i) const { return load_u16(block(0) + 2 * kRowGroup * i + 2 * row_); }
    std::uint8_t byte(int block_number, int i) const { return block(block_number)[kRowGroup * i + row_]; }
    // Of the nibbles of all rows, `offset` into the bytes of the block.
    int nibble(int block_number, std::int64_t offset) const {
        return decode_nibble(block(block_number) + offset, row_);
    }
    SixBitPair six_bits(int block_number) const { return decode_six_bits(block(block_number), row_); }

    // Of rounded formats: the scale relative to the row's base, and the zero, of 16 columns.
    BlockScale of_half(int half) const {
        return scale_in_group(format_, group_, first_block_ + half / 2, row_, half % 2);
    }
    float base() const { return decode_base(format_, group_, row_); }

  private:
    Format format_;
    const std::uint8_t* group_;
    std::int64_t first_block_, row_;
};

inline void put_u16(std::uint8_t* p, std::uint16_t value) { std::memcpy(p, &value, sizeof value); }

// Writes the blocks of one row of a group.
using WriteRow = void(const std::uint8_t* group, std::int64_t cols, std::int64_t row, std::uint8_t* blocks);

// That of a format with a grid (grid_writing.cpp).
WriteRow* grid_row_writer(Format f);

}  // namespace edgemoe
