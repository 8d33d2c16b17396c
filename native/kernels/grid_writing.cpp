// The inverse of grid_blocks.cpp: numbers of points, signs and scales of a row are gathered, then one writer
// per block type puts them where ggml has them.
#include "kernels/grid_block.h"
#include "kernels/grids.h"
#include "kernels/unpack_row.h"

namespace edgemoe {
namespace {

constexpr int kBlocks = kSuperBlocks;

void put_u32(std::uint8_t* p, std::uint32_t value) { std::memcpy(p, &value, sizeof value); }

// Seven signs for each of 4 points, the eighth of which follows from them, and 4 bits of scale above.
void write_signs_and_scale(const GridBlock& grid, int i, std::uint8_t* bytes) {
    std::uint32_t word = std::uint32_t{grid.scales[i]} << 28;
    for (int j = 0; j < 4; ++j) word |= (grid.signs[4 * i + j] & 127u) << 7 * j;
    put_u32(bytes, word);
}

void join_scales(const std::uint8_t* scales, int n, std::uint8_t* bytes) {
    for (int i = 0; i < n; ++i) {
        bytes[i] = static_cast<std::uint8_t>(scales[2 * i] | scales[2 * i + 1] << 4);
    }
}

// The bits beyond 8 of the numbers of n points, `bits` each.
void join_high_bits(const std::uint16_t* points, int n, int bits, std::uint8_t* bytes) {
    const int per_byte = 8 / bits;
    for (int i = 0; i < n / per_byte; ++i) {
        int all = 0;
        for (int j = 0; j < per_byte; ++j) all |= points[per_byte * i + j] >> 8 << bits * j;
        bytes[i] = static_cast<std::uint8_t>(all);
    }
}

template <Format f>
void write_grid(const GridBlock& grid, std::uint8_t* block);

template <>
void write_grid<Format::kIq2Xxs>(const GridBlock& grid, std::uint8_t* block) {
    put_u16(block, grid.shared);
    for (int i = 0; i < kBlocks; ++i) {
        std::uint8_t* bytes = block + 2 + 8 * i;
        for (int j = 0; j < 4; ++j) bytes[j] = static_cast<std::uint8_t>(grid.points[4 * i + j]);
        write_signs_and_scale(grid, i, bytes + 4);
    }
}

template <>
void write_grid<Format::kIq2Xs>(const GridBlock& grid, std::uint8_t* block) {
    put_u16(block, grid.shared);
    for (int i = 0; i < 32; ++i) {
        const int word = grid.points[i] | (grid.signs[i] & 127) << 9;
        put_u16(block + 2 + 2 * i, static_cast<std::uint16_t>(word));
    }
    join_scales(grid.scales, 8, block + 66);
}

template <>
void write_grid<Format::kIq2S>(const GridBlock& grid, std::uint8_t* block) {
    put_u16(block, grid.shared);
    for (int i = 0; i < 32; ++i) block[2 + i] = static_cast<std::uint8_t>(grid.points[i]);
    std::memcpy(block + 34, grid.signs, sizeof grid.signs);
    join_high_bits(grid.points, 32, 2, block + 66);
    join_scales(grid.scales, 8, block + 74);
}

template <>
void write_grid<Format::kIq3Xxs>(const GridBlock& grid, std::uint8_t* block) {
    put_u16(block, grid.shared);
    for (int i = 0; i < 64; ++i) block[2 + i] = static_cast<std::uint8_t>(grid.points[i]);
    for (int i = 0; i < kBlocks; ++i) write_signs_and_scale(grid, i, block + 66 + 4 * i);
}

template <>
void write_grid<Format::kIq3S>(const GridBlock& grid, std::uint8_t* block) {
    put_u16(block, grid.shared);
    for (int i = 0; i < 64; ++i) block[2 + i] = static_cast<std::uint8_t>(grid.points[i]);
    join_high_bits(grid.points, 64, 1, block + 66);
    std::memcpy(block + 74, grid.signs, sizeof grid.signs);
    join_scales(grid.scales, 4, block + 106);
}

// Of a point of iq1 three bits of its number, and whether it is lowered, which is the other way round here.
int high_bits_of_1(std::uint16_t point) { return point >> 8 & 7; }
bool is_lowered(std::uint16_t point) { return (point & kPoints1) == 0; }

// Four points have one bit that lowers them.
template <>
void write_grid<Format::kIq1S>(const GridBlock& grid, std::uint8_t* block) {
    put_u16(block, grid.shared);
    for (int i = 0; i < kBlocks; ++i) {
        const std::uint16_t* points = grid.points + 4 * i;
        int word = grid.scales[i] << 12 | (is_lowered(points[0]) ? 0x8000 : 0);
        for (int j = 0; j < 4; ++j) {
            block[2 + 4 * i + j] = static_cast<std::uint8_t>(points[j]);
            word |= high_bits_of_1(points[j]) << 3 * j;
        }
        put_u16(block + 34 + 2 * i, static_cast<std::uint16_t>(word));
    }
}

template <>
void write_grid<Format::kIq1M>(const GridBlock& grid, std::uint8_t* block) {
    for (int i = 0; i < 4; ++i) {
        int word = (grid.shared >> 4 * i & 15) << 12;
        for (int j = 0; j < 4; ++j) word |= grid.scales[4 * i + j] << 3 * j;
        put_u16(block + 48 + 2 * i, static_cast<std::uint16_t>(word));
    }
    for (int i = 0; i < 16; ++i) {
        int both = 0;
        for (int j = 0; j < 2; ++j) {
            const std::uint16_t point = grid.points[2 * i + j];
            block[2 * i + j] = static_cast<std::uint8_t>(point);
            both |= (high_bits_of_1(point) | (is_lowered(point) ? 8 : 0)) << 4 * j;
        }
        block[32 + i] = static_cast<std::uint8_t>(both);
    }
}

// Gathers the points of block i of 32 columns.
template <Format f>
void take_points(const RowScales& scales, int i, const std::uint8_t* codes, std::int64_t row,
                 GridBlock& grid) {
    constexpr int kPoints = static_cast<int>(block_points(f)), kBits = grid_traits(f).high_bits;
    constexpr std::int64_t kRowBits = high_bits_of_row(f), kPlace = own_scale_bytes(f);
    std::uint32_t high = 0;
    if constexpr (kRowBits == 4) high = static_cast<std::uint32_t>(scales.nibble(i, kPlace));
    if constexpr (kRowBits >= 8) {
        for (int byte = 0; byte < kRowBits / 8; ++byte) {
            high |= std::uint32_t{scales.block(i)[kPlace + byte * kRowGroup + row]} << 8 * byte;
        }
    }
    for (int p = 0; p < kPoints; ++p) {
        const std::uint32_t above = high >> kBits * p & ((1u << kBits) - 1);
        const std::uint8_t low = codes[p / 4 * kChunk + row * kQuad + p % 4];
        grid.points[kPoints * i + p] = static_cast<std::uint16_t>(low | above << 8);
    }
}

// Bit g of byte c has the sign of column 4 g + c.
void take_signs(const std::uint8_t* chunk, std::int64_t row, std::uint8_t* signs) {
    std::uint32_t bits = 0;
    for (int col = 0; col < kBlock; ++col) {
        bits |= (chunk[row * kQuad + col % kQuad] >> col / kQuad & 1u) << col;
    }
    put_u32(signs, bits);
}

template <Format f>
void write_grid_row(const std::uint8_t* group, std::int64_t cols, std::int64_t row, std::uint8_t* blocks) {
    const std::uint8_t* codes = group + group_header_bytes(f, cols);
    for (std::int64_t first = 0; first < cols / kBlock; first += kBlocks) {
        const RowScales scales(f, group, first, row);
        GridBlock grid = {};
        grid.shared = scales.shared(0);
        for (int i = 0; i < kBlocks; ++i, codes += block_code_bytes(f)) {
            take_points<f>(scales, i, codes, row, grid);
            if constexpr (grid_traits(f).has_signs) {
                take_signs(codes + block_points(f) / 4 * kChunk, row, grid.signs + 4 * i);
            }
            if constexpr (traits(f).scales == Scales::kOdd) {
                grid.scales[i] = static_cast<std::uint8_t>(scales.nibble(i, 0));
            } else {
                grid.scales[2 * i] = scales.byte(i, 0) & 15;
                grid.scales[2 * i + 1] = scales.byte(i, 0) >> 4;
            }
        }
        write_grid<f>(grid, blocks);
        blocks += traits(f).block_bytes;
    }
}

}  // namespace

WriteRow* grid_row_writer(Format f) {
    switch (f) {
        case Format::kIq1S:
            return write_grid_row<Format::kIq1S>;
        case Format::kIq1M:
            return write_grid_row<Format::kIq1M>;
        case Format::kIq2Xxs:
            return write_grid_row<Format::kIq2Xxs>;
        case Format::kIq2Xs:
            return write_grid_row<Format::kIq2Xs>;
        case Format::kIq2S:
            return write_grid_row<Format::kIq2S>;
        case Format::kIq3Xxs:
            return write_grid_row<Format::kIq3Xxs>;
        case Format::kIq3S:
            return write_grid_row<Format::kIq3S>;
        default:
            return nullptr;
    }
}

}  // namespace edgemoe
