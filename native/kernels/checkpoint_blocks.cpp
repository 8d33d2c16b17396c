// MXFP4 and NVFP4 as checkpoints have them: nibbles, and their scales in tensors of their own.
#include <algorithm>
#include <cmath>

#include "kernels/exact_blocks.h"
#include "kernels/pack_rows.h"
#include "kernels/row_codes.h"

namespace edgemoe {
namespace {

// codes[2i] = the low nibble of byte i of 16, codes[2i + 1] the high one.
void split_neighbours(const std::uint8_t* bytes, std::uint8_t* codes) {
    for (int i = 0; i < kBlock; ++i) codes[i] = bytes[i / 2] >> i % 2 * 4 & 15;
}

// Calls read(first + r, i, place, codes), which takes block i of a row apart and says whether it is finite,
// for `count` rows and all of their blocks, and places the codes; as of PackRows.
template <Format f, typename Read>
std::int64_t pack_read(std::int64_t first, std::int64_t count, std::int64_t cols, std::uint8_t* group,
                       std::int64_t row, const Read& read) {
    RowCodes codes = {};
    std::uint8_t* place = group + group_header_bytes(f, cols) + row * kQuad;
    bool is_finite[kRowsTogether] = {true, true, true, true};
    for (std::int64_t i = 0; i < cols / kBlock; ++i, place += block_code_bytes(f)) {
        for (std::int64_t r = 0; r < count; ++r) {
            is_finite[r] &= read(first + r, i, ScaleRow(f, group, i, row + r), codes[r]);
        }
        place_codes<code_bits(f)>(codes, 0, place);
    }
    return std::find(is_finite, is_finite + count, false) - is_finite;
}

}  // namespace

std::int64_t pack_mxfp4(const std::uint8_t* nibbles, const std::uint8_t* exponents, std::int64_t rows,
                        std::int64_t cols, std::uint8_t* packed) {
    constexpr Format kFormat = Format::kMxfp4;
    const std::int64_t num_blocks = cols / kBlock;
    const auto read = [=](std::int64_t row, std::int64_t i, const ScaleRow& scales, std::uint8_t* codes) {
        const std::int64_t block = row * num_blocks + i;
        split_neighbours(nibbles + block * (kBlock / 2), codes);
        scales.put_byte(0, 0, exponents[block]);
        return is_finite_mxfp4(exponents[block], codes);
    };
    return pack_all(rows, cols, kFormat, packed,
                    [=](std::int64_t first, std::int64_t count, std::uint8_t* group, std::int64_t row) {
                        return pack_read<kFormat>(first, count, cols, group, row, read);
                    });
}

std::int64_t pack_nvfp4(const std::uint8_t* nibbles, const std::uint8_t* scales, const float* factors,
                        std::int64_t rows, std::int64_t cols, std::uint8_t* packed) {
    constexpr Format kFormat = Format::kNvfp4;
    const std::int64_t num_blocks = cols / kBlock;
    const auto read = [=](std::int64_t row, std::int64_t i, const ScaleRow& place, std::uint8_t* codes) {
        const std::int64_t block = row * num_blocks + i;
        bool is_finite = std::isfinite(factors[row]);
        split_neighbours(nibbles + block * (kBlock / 2), codes);
        for (int half = 0; half < 2; ++half) {
            const std::uint8_t scale = scales[2 * block + half];
            place.put_byte(0, half, scale & 127);
            is_finite &= (scale & 127) != 127;
            // The format's scales have no sign: that of the numbers says as much.
            if (scale > 127) std::for_each_n(codes + 16 * half, 16, [](auto& code) { code ^= 8; });
        }
        place.put_row_factor(factors[row]);
        return is_finite;
    };
    return pack_all(rows, cols, kFormat, packed,
                    [=](std::int64_t first, std::int64_t count, std::uint8_t* group, std::int64_t row) {
                        return pack_read<kFormat>(first, count, cols, group, row, read);
                    });
}

}  // namespace edgemoe
