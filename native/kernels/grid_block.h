// A block of 256 columns of a type with a grid, taken apart: what readers and writers of such blocks share.
#pragma once

#include <cstdint>

namespace edgemoe {

struct GridBlock {
    std::uint16_t points[64];  // numbers, of 4 or 8 columns each
    std::uint8_t signs[32];    // a bit for each column
    std::uint8_t scales[16];   // 4 bits for 16 columns; or the first 8 for 32
    std::uint16_t shared;      // f16
};

}  // namespace edgemoe
