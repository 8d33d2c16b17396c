// Weights to packed bytes and back.
#pragma once

#include "kernels/layout.h"

namespace edgemoe {

// Packs w [rows][cols] into `packed` (packed_bytes long), on all threads. Low-bit scales and zeros are
// searched for the least squared error, weighted per column by `importance` [cols] when it is not null.
void quantize(const float* w, std::int64_t rows, std::int64_t cols, Format format, const float* importance,
              std::uint8_t* packed);

// One row of a packed matrix, as floats [cols].
void dequantize_row(const std::uint8_t* packed, std::int64_t cols, Format format, std::int64_t row,
                    float* out);

}  // namespace edgemoe
