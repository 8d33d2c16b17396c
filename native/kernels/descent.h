// Rounding that looks at a matrix's inputs: codes are chosen for the error of products, not of single
// weights.
#pragma once

#include "kernels/layout.h"

namespace edgemoe {

// Changes codes and row bases of `packed`, the quantised form of w [rows][cols], so that the squared error of
// its products falls: the sum over rows of (w - q) G (w - q)^T, where gram G [cols][cols], symmetric with a
// positive diagonal, is the mean of x^T x over inputs x. Block scales and zeros stay. No row's error ever
// rises. On all threads; `format` is one whose traits say so.
void refine(const float* w, std::int64_t rows, std::int64_t cols, Format format, const float* gram,
            std::uint8_t* packed);

}  // namespace edgemoe
