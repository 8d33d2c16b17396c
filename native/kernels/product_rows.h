// Rows that are multiplied with packed matrices, in the form that kernels take, and how a product is shared
// among threads. For `matmul.cpp` and `expert_ffn.cpp`. Letters: T tokens, R rows, M columns.
#pragma once

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "kernels/kernels.h"

namespace edgemoe {

// Tokens quantised by one thread at a time; a decode step has one and stays on the caller.
constexpr std::int64_t kTokenGrain = 8;

struct FreeAligned {
    void operator()(std::uint8_t* p) const { ::operator delete(p, std::align_val_t{kAlignment}); }
};
using AlignedBytes = std::unique_ptr<std::uint8_t, FreeAligned>;

// T rows of activations, with their 8-bit form when a low-bit matrix needs it. Rows that are not multiplied
// with the same matrix are kept apart.
class QuantizedRows {
  public:
    QuantizedRows(const float* x, std::int64_t num_tokens, std::int64_t cols, bool needs_codes,
                  bool are_apart = false);

    const Activations& operator*() const { return activations_; }

    // Row t alone, of rows that are kept apart.
    Activations row(std::int64_t t) const;

  private:
    AlignedBytes blocks_;
    Activations activations_;
};

// Rows [R][M] in parts, the rows [starts[p], starts[p + 1]) of each multiplied with a matrix of its own, with
// their 8-bit form when some of these need it.
class PartedRows {
  public:
    PartedRows(const float* values, std::int64_t cols, std::vector<std::int64_t> starts, bool needs_codes);

    Activations part(std::size_t p) const;

  private:
    const float* values_;
    std::int64_t cols_;
    std::vector<std::int64_t> starts_, places_;
    AlignedBytes blocks_;
};

// Most bytes of the 8-bit forms of so many rows in parts, whose last tiles are more than half filled.
std::int64_t parted_bytes(std::int64_t num_rows, std::int64_t cols);

// Groups of a matrix's rows that a thread takes at least.
std::int64_t group_grain(const Matrix& w, std::int64_t num_tokens);

// Calls body(part, begin, end) for the ranges of equally long parts that [begin, end) of all parts covers.
template <typename Body>
void for_each_part(std::int64_t begin, std::int64_t end, std::int64_t length, const Body& body) {
    while (begin < end) {
        const std::int64_t part = begin / length, stop = std::min(end, (part + 1) * length);
        body(static_cast<std::size_t>(part), begin - part * length, stop - part * length);
        begin = stop;
    }
}

}  // namespace edgemoe
