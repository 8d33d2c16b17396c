// Readers of the block types with grids: each takes a block of 256 columns apart into numbers of points,
// signs and scales; placing them is the same for all. The block types are those of ggml, by the definitions
// of the gguf library.
#include <bit>

#include "kernels/grid_block.h"
#include "kernels/grids.h"
#include "kernels/pack_rows.h"

namespace edgemoe {
namespace {

constexpr int kBlocks = kSuperBlocks;

std::uint32_t u32_at(const std::uint8_t* p) {
    std::uint32_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Of eight columns the last has a sign with which the number of signs is even.
std::uint8_t eight_signs(std::uint32_t seven) {
    seven &= 127;
    return static_cast<std::uint8_t>(seven | (static_cast<unsigned>(std::popcount(seven)) & 1) << 7);
}

// Seven signs for each of 4 points and 4 bits of scale above them.
void read_signs_and_scale(const std::uint8_t* bytes, int i, GridBlock& grid) {
    const std::uint32_t word = u32_at(bytes);
    for (int j = 0; j < 4; ++j) grid.signs[4 * i + j] = eight_signs(word >> 7 * j);
    grid.scales[i] = static_cast<std::uint8_t>(word >> 28);
}

void split_scales(const std::uint8_t* bytes, int n, std::uint8_t* scales) {
    for (int i = 0; i < n; ++i) {
        scales[2 * i] = bytes[i] & 15;
        scales[2 * i + 1] = bytes[i] >> 4;
    }
}

std::uint16_t with_high_bits(std::uint8_t low, int high) {
    return static_cast<std::uint16_t>(low | high << 8);
}

template <Format f>
void read_grid(const std::uint8_t* block, GridBlock& grid);

template <>
void read_grid<Format::kIq2Xxs>(const std::uint8_t* block, GridBlock& grid) {
    grid.shared = u16_at(block);
    for (int i = 0; i < kBlocks; ++i) {
        const std::uint8_t* bytes = block + 2 + 8 * i;
        for (int j = 0; j < 4; ++j) grid.points[4 * i + j] = bytes[j];
        read_signs_and_scale(bytes + 4, i, grid);
    }
}

template <>
void read_grid<Format::kIq2Xs>(const std::uint8_t* block, GridBlock& grid) {
    grid.shared = u16_at(block);
    for (int i = 0; i < 32; ++i) {
        const std::uint16_t word = u16_at(block + 2 + 2 * i);
        grid.points[i] = word & 511;
        grid.signs[i] = eight_signs(word >> 9);
    }
    split_scales(block + 66, 8, grid.scales);
}

template <>
void read_grid<Format::kIq2S>(const std::uint8_t* block, GridBlock& grid) {
    grid.shared = u16_at(block);
    for (int i = 0; i < 32; ++i) {
        grid.points[i] = with_high_bits(block[2 + i], block[66 + i / 4] >> i % 4 * 2 & 3);
        grid.signs[i] = block[34 + i];
    }
    split_scales(block + 74, 8, grid.scales);
}

template <>
void read_grid<Format::kIq3Xxs>(const std::uint8_t* block, GridBlock& grid) {
    grid.shared = u16_at(block);
    for (int i = 0; i < 64; ++i) grid.points[i] = block[2 + i];
    for (int i = 0; i < kBlocks; ++i) read_signs_and_scale(block + 66 + 4 * i, i, grid);
}

template <>
void read_grid<Format::kIq3S>(const std::uint8_t* block, GridBlock& grid) {
    grid.shared = u16_at(block);
    for (int i = 0; i < 64; ++i)
        grid.points[i] = with_high_bits(block[2 + i], block[66 + i / 8] >> i % 8 & 1);
    std::memcpy(grid.signs, block + 74, sizeof grid.signs);
    split_scales(block + 106, 4, grid.scales);
}

// The number of a point of iq1 with the bit that raises it, which these types have the other way round.
std::uint16_t raised(std::uint8_t low, int high, bool is_lowered) {
    return with_high_bits(low, high & 7) | static_cast<std::uint16_t>(is_lowered ? 0 : kPoints1);
}

template <>
void read_grid<Format::kIq1S>(const std::uint8_t* block, GridBlock& grid) {
    grid.shared = u16_at(block);
    for (int i = 0; i < kBlocks; ++i) {
        const std::uint16_t word = u16_at(block + 34 + 2 * i);
        for (int j = 0; j < 4; ++j) {
            grid.points[4 * i + j] = raised(block[2 + 4 * i + j], word >> 3 * j, (word & 0x8000) != 0);
        }
        grid.scales[i] = word >> 12 & 7;
    }
}

// The shared scale lies in the high nibbles of four words, the others in three bits each below them.
template <>
void read_grid<Format::kIq1M>(const std::uint8_t* block, GridBlock& grid) {
    grid.shared = 0;
    for (int i = 0; i < 4; ++i) {
        const std::uint16_t word = u16_at(block + 48 + 2 * i);
        grid.shared |= static_cast<std::uint16_t>(word >> 12 << 4 * i);
        for (int j = 0; j < 4; ++j) grid.scales[4 * i + j] = word >> 3 * j & 7;
    }
    for (int i = 0; i < 32; ++i) {
        const int high = block[32 + i / 2] >> i % 2 * 4;
        grid.points[i] = raised(block[i], high, (high & 8) != 0);
    }
}

// Places block i of 32 columns.
template <Format f>
void place_points(const GridBlock& grid, int i, std::int64_t row, const ScaleRow& scales,
                  std::uint8_t* codes) {
    constexpr int kPoints = static_cast<int>(block_points(f)), kBits = grid_traits(f).high_bits;
    std::uint32_t high = 0;
    for (int p = 0; p < kPoints; ++p) {
        const std::uint16_t number = grid.points[kPoints * i + p];
        codes[p / 4 * kChunk + row * kQuad + p % 4] = static_cast<std::uint8_t>(number);
        high |= std::uint32_t{number} >> 8 << kBits * p;
    }
    constexpr std::int64_t kRowBits = high_bits_of_row(f), kPlace = own_scale_bytes(f);
    if constexpr (kRowBits == 4) scales.put_nibble(i, kPlace, static_cast<int>(high));
    if constexpr (kRowBits >= 8) {
        for (int byte = 0; byte < kRowBits / 8; ++byte) {
            scales.block(i)[kPlace + byte * kRowGroup + row] = static_cast<std::uint8_t>(high >> 8 * byte);
        }
    }
}

// Bit g of byte c has the sign of column 4 g + c.
void place_signs(const std::uint8_t* signs, std::int64_t row, std::uint8_t* chunk) {
    const std::uint32_t bits = u32_at(signs);
    for (int col = 0; col < kBlock; ++col) {
        chunk[row * kQuad + col % kQuad] |= static_cast<std::uint8_t>((bits >> col & 1) << col / kQuad);
    }
}

template <Format f>
bool pack_grid_row(const std::uint8_t* blocks, std::int64_t cols, std::uint8_t* group, std::int64_t row) {
    bool is_finite = true;
    std::uint8_t* codes = group + group_header_bytes(f, cols);
    for (std::int64_t first = 0; first < cols / kBlock; first += kBlocks) {
        GridBlock grid;
        read_grid<f>(blocks, grid);
        blocks += traits(f).block_bytes;
        const ScaleRow scales(f, group, first, row);
        is_finite &= scales.put_shared(0, grid.shared);
        for (int i = 0; i < kBlocks; ++i, codes += block_code_bytes(f)) {
            place_points<f>(grid, i, row, scales, codes);
            if constexpr (grid_traits(f).has_signs) {
                place_signs(grid.signs + 4 * i, row, codes + block_points(f) / 4 * kChunk);
            }
            if constexpr (traits(f).scales == Scales::kOdd) {
                scales.put_nibble(i, 0, grid.scales[i]);
            } else {
                const int both = grid.scales[2 * i] | grid.scales[2 * i + 1] << 4;
                scales.put_byte(i, 0, static_cast<std::uint8_t>(both));
            }
        }
    }
    return is_finite;
}

template <Format f>
std::int64_t pack_grid_rows(const std::uint8_t* blocks, std::int64_t row_bytes, std::int64_t count,
                            std::int64_t cols, std::uint8_t* group, std::int64_t row) {
    std::int64_t num_finite = 0;
    for (std::int64_t r = 0; r < count; ++r) {
        const bool is_finite = pack_grid_row<f>(blocks + r * row_bytes, cols, group, row + r);
        if (is_finite && num_finite == r) ++num_finite;
    }
    return num_finite;
}

}  // namespace

PackRows* grid_row_packer(Format f) {
    switch (f) {
        case Format::kIq1S:
            return pack_grid_rows<Format::kIq1S>;
        case Format::kIq1M:
            return pack_grid_rows<Format::kIq1M>;
        case Format::kIq2Xxs:
            return pack_grid_rows<Format::kIq2Xxs>;
        case Format::kIq2Xs:
            return pack_grid_rows<Format::kIq2Xs>;
        case Format::kIq2S:
            return pack_grid_rows<Format::kIq2S>;
        case Format::kIq3Xxs:
            return pack_grid_rows<Format::kIq3Xxs>;
        case Format::kIq3S:
            return pack_grid_rows<Format::kIq3S>;
        default:
            return nullptr;
    }
}

}  // namespace edgemoe
