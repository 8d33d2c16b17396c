// Trellis codes (Marcellin and Fischer 1990; the convolutional code of 64 states is Ungerboeck's, 1982):
// which half of a table's values a weight may have is decided by the path bits of seven weights. So 8 values
// cost 2 bits a weight, 16 values 3 bits, and the values of neighbours are chosen together, by the Viterbi
// algorithm.
//
// The 64 weights of a quad of columns are a cycle: place 16 * (column % 4) + row. Its path bits go round, so
// every quad is decoded by itself; layout.h has the bits.
#pragma once

#include <bit>

#include "kernels/layout.h"

namespace edgemoe {

inline constexpr int kCycle = 64;
static_assert(kCycle == kRowGroup * kQuad);

static constexpr std::int64_t cycle_place(std::int64_t row, std::int64_t col) {
    return kRowGroup * (col % kQuad) + row;
}

// One quad of 16 rows: path bit and number in the table of values, by the place in the cycle.
struct QuadCodes {
    std::uint64_t path;
    std::uint8_t numbers[kCycle];
};

// The low two bits of the number at a place; the high bits are the weight's own.
static constexpr int subset_of(std::uint64_t path, std::int64_t place) {
    const auto next = static_cast<int>(std::rotr(path, static_cast<int>(place)) & 127);
    return ((next ^ next >> 1 ^ next >> 6) & 1) << 1 | ((next >> 2 ^ next >> 4) & 1);
}

// What the numbers of a format stand for, without its zero; 16 floats.
struct TrellisLevels {
    explicit TrellisLevels(Format f);

    float values[16];
    int count;
    float spread;  // root mean square of a Gaussian that they fit
};

// What the encoder is to come near to: the codes of least summed weight * (value - wanted)^2 are sought.
struct QuadTarget {
    virtual ~QuadTarget() = default;

    // Told before the places of a column are encoded, from the last column to the first. Of a target that
    // follows, what has been chosen for the columns after it is in `numbers`; it may yet change a little.
    virtual void begin_column(std::int64_t, const std::uint8_t*) {}

    bool follows = false;
    float wanted[kCycle] = {};
    float weights[kCycle] = {};
};
void encode_quad(const TrellisLevels& levels, QuadTarget& target, QuadCodes& codes);

// The number of one weight of a block.
int trellis_number(Format f, const std::uint8_t* block_codes, std::int64_t row, std::int64_t col);

// The codes of the block that a column lies in.
inline std::uint8_t* codes_of_block(Format f, std::uint8_t* group, std::int64_t cols, std::int64_t col) {
    return group + group_header_bytes(f, cols) + col / kBlock * block_code_bytes(f);
}

// Writes quad `quad` of a block.
void set_quad(Format f, std::uint8_t* block_codes, std::int64_t quad, const QuadCodes& codes);

struct GroupRows;  // group_lanes.h

// Packs one group, whose bytes are zeros; see quantize().
void quantize_trellis_group(const GroupRows& rows, Format format, std::uint8_t* group);

}  // namespace edgemoe
