// The inverse of exact_blocks.cpp: codes and scales of a row are gathered, then one writer per format
// (block_writers.h) puts them where ggml has them.
#include "kernels/block_writing.h"

#include <algorithm>
#include <cstring>

#include "core/thread_pool.h"
#include "kernels/block_writers.h"
#include "kernels/exact_blocks.h"

namespace edgemoe {
namespace {

// The codes of one row in a block of 32 columns; place_codes of row_codes.h is the inverse.
template <int bits>
void take_codes(const std::uint8_t* block, std::int64_t row, std::uint8_t* codes) {
    constexpr std::uint32_t kOnes = 0x01010101;
    const auto chunk = [=](int c) {
        std::uint32_t four;
        std::memcpy(&four, block + c * kChunk + row * kQuad, sizeof four);
        return four;
    };
    for (int g = 0; g < kQuads; ++g) {
        std::uint32_t four;
        if constexpr (bits == 8) {
            four = chunk(g);
        } else if constexpr (bits >= 4) {
            four = chunk(g % 4) >> g / 4 * 4 & 15 * kOnes;
        } else {
            four = chunk(g / 4) >> g % 4 * 2 & 3 * kOnes;
        }
        if constexpr (bits == 6) four |= (chunk(4 + g / 4) >> g % 4 * 2 & 3 * kOnes) << 4;
        if constexpr (bits == 3 || bits == 5) four |= (chunk(bits - 1) >> g & kOnes) << (bits - 1);
        std::memcpy(codes + g * kQuad, &four, sizeof four);
    }
}

constexpr Format carrier_of(Format f) {
    if (f == Format::kQ4) return Format::kQ4_1;
    return f == Format::kQ2 || f == Format::kQ3 || f == Format::kQ6 ? Format::kQ6K : f;
}

template <Format f>
void write_row(const std::uint8_t* group, std::int64_t cols, std::int64_t row, std::uint8_t* blocks) {
    constexpr Format kWritten = carrier_of(f);
    constexpr int kBlocks = traits(kWritten).block_cols / kBlock;
    const std::uint8_t* packed = group + group_header_bytes(f, cols);
    std::uint8_t codes[kLargestBlock];
    for (std::int64_t first = 0; first < cols / kBlock; first += kBlocks) {
        for (int i = 0; i < kBlocks; ++i) {
            take_codes<code_bits(f)>(packed + (first + i) * block_code_bytes(f), row, codes + i * kBlock);
        }
        write_block<f>(RowScales(f, group, first, row), codes, blocks);
        blocks += traits(kWritten).block_bytes;
    }
}

// nullptr of floats.
WriteRow* row_writer(Format f) {
    switch (f) {
        case Format::kQ2:
            return write_row<Format::kQ2>;
        case Format::kQ3:
            return write_row<Format::kQ3>;
        case Format::kQ4:
            return write_row<Format::kQ4>;
        case Format::kQ6:
            return write_row<Format::kQ6>;
        case Format::kQ8:
            return write_row<Format::kQ8>;
        case Format::kMxfp4:
            return write_row<Format::kMxfp4>;
        case Format::kQ4_0:
            return write_row<Format::kQ4_0>;
        case Format::kQ4_1:
            return write_row<Format::kQ4_1>;
        case Format::kQ5_0:
            return write_row<Format::kQ5_0>;
        case Format::kQ5_1:
            return write_row<Format::kQ5_1>;
        case Format::kQ2K:
            return write_row<Format::kQ2K>;
        case Format::kQ3K:
            return write_row<Format::kQ3K>;
        case Format::kQ4K:
            return write_row<Format::kQ4K>;
        case Format::kQ5K:
            return write_row<Format::kQ5K>;
        case Format::kQ6K:
            return write_row<Format::kQ6K>;
        case Format::kIq4Nl:
            return write_row<Format::kIq4Nl>;
        case Format::kIq4Xs:
            return write_row<Format::kIq4Xs>;
        case Format::kNvfp4:
            return write_row<Format::kNvfp4>;
        case Format::kTq1_0:
            return write_row<Format::kTq1_0>;
        case Format::kTq2_0:
            return write_row<Format::kTq2_0>;
        default:
            return has_grid(f) ? grid_row_writer(f) : nullptr;
    }
}

}  // namespace

Format carrier(Format f, std::int64_t cols) {
    const Format found = carrier_of(f);
    return cols % traits(found).block_cols == 0 ? found : f;
}

bool writes_blocks(Format f, std::int64_t cols) {
    return row_writer(f) != nullptr && cols % traits(carrier_of(f)).block_cols == 0;
}

void write_blocks(const std::uint8_t* packed, std::int64_t rows, std::int64_t cols, Format f,
                  std::uint8_t* blocks) {
    WriteRow* const write = row_writer(f);
    const std::int64_t row_bytes = block_row_bytes(carrier(f, cols), cols);
    parallel_for(num_groups(rows), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin * kRowGroup; row < std::min(end * kRowGroup, rows); ++row) {
            write(packed + row / kRowGroup * group_bytes(f, cols), cols, row % kRowGroup,
                  blocks + row * row_bytes);
        }
    });
}

}  // namespace edgemoe
