// Blocks of other engines become exact formats: codes and scales change places, and no weight changes.
#pragma once

#include <cstdint>

#include "kernels/layout.h"

namespace edgemoe {

// Packs rows [rows][cols / block_cols] of GGUF blocks of the format's type, or of its floats, into `packed`
// (packed_bytes long), on all threads. Rows may be packed in chunks of whole groups of 16, as they may be
// quantised. Returns the first row with a weight that is not finite, of which some bytes may be wrong, or -1.
std::int64_t pack_blocks(const std::uint8_t* blocks, std::int64_t rows, std::int64_t cols, Format format,
                         std::uint8_t* packed);

// The same for MXFP4 as checkpoints have it: nibbles [rows][cols / 32][16], of which byte j holds columns 2j
// (low) and 2j + 1, and exponents [rows][cols / 32].
std::int64_t pack_mxfp4(const std::uint8_t* nibbles, const std::uint8_t* exponents, std::int64_t rows,
                        std::int64_t cols, std::uint8_t* packed);

// The same for NVFP4 as checkpoints have it: nibbles [rows][cols / 2], of which byte j holds columns 2j (low)
// and 2j + 1, floats of 8 bits (E4M3) [rows][cols / 16], and what all of a row is multiplied with [rows].
std::int64_t pack_nvfp4(const std::uint8_t* nibbles, const std::uint8_t* scales, const float* factors,
                        std::int64_t rows, std::int64_t cols, std::uint8_t* packed);

// Whether rows of a format can be packed: blocks, or floats.
bool packs_rows(Format format);
// Whether they are made of blocks.
bool packs_blocks(Format format);

}  // namespace edgemoe
