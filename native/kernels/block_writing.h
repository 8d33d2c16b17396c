// Packed matrices become blocks of GGUF again: of exact formats the very bytes that were packed, of our
// rounded formats the blocks that hold the same codes.
#pragma once

#include <cstdint>

#include "kernels/layout.h"

namespace edgemoe {

// The format whose blocks hold a matrix of so many columns: the same one for exact formats and floats. Of q4
// it is Q4_1, of q2, q3 and q6 it is Q6_K: every code is kept, and scales are rounded to what those blocks
// have. Without such blocks for rows of this length, the format itself, which has no block type.
Format carrier(Format f, std::int64_t cols);

// Whether write_blocks can write the blocks of a matrix in this format.
bool writes_blocks(Format f, std::int64_t cols);

// Writes rows [rows][cols / block_cols] of blocks of the carrier's type, on all threads. Not for floats.
void write_blocks(const std::uint8_t* packed, std::int64_t rows, std::int64_t cols, Format f,
                  std::uint8_t* blocks);

}  // namespace edgemoe
