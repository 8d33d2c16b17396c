// Blocks of which four rows at a time go to their places: bits of codes and bytes of scales change places
// within vectors, so that no code is taken out by itself. The block types are those of ggml, by the
// definitions of the gguf library.
#include <algorithm>
#include <cstring>

#include "kernels/clones.h"
#include "kernels/pack_rows.h"
#include "kernels/row_codes.h"

namespace edgemoe {
namespace {

// A byte of each of the four rows.
using RowBytes = std::uint32_t;
constexpr std::uint32_t kOnes = 0x01010101;  // times a byte: that byte for every row

constexpr int kLineBytes = 64;  // of the caches
constexpr int kNumRows = static_cast<int>(kRowsTogether);

// A block of each row.
using Blocks = const std::uint8_t* [kRowsTogether];

// Bytes [offset, offset + 16) of each row, those of the four rows side by side.
[[gnu::always_inline]] inline void load_bytes(const Blocks& blocks, int offset, RowBytes (&bytes)[16]) {
    using Bytes = std::uint8_t __attribute__((vector_size(16)));
    using Pairs = std::uint16_t __attribute__((vector_size(16)));
    Bytes a, b, c, d;  // one of each row
    std::memcpy(&a, blocks[0] + offset, sizeof a);
    std::memcpy(&b, blocks[1] + offset, sizeof b);
    std::memcpy(&c, blocks[2] + offset, sizeof c);
    std::memcpy(&d, blocks[3] + offset, sizeof d);
    const auto low = [](Bytes x, Bytes y) {
        return reinterpret_cast<Pairs>(
            EDGEMOE_SHUFFLE(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    };
    const auto high = [](Bytes x, Bytes y) {
        return reinterpret_cast<Pairs>(
            EDGEMOE_SHUFFLE(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    };
    const Pairs ab[2] = {low(a, b), high(a, b)}, cd[2] = {low(c, d), high(c, d)};
    const Pairs all[4] = {EDGEMOE_SHUFFLE(ab[0], cd[0], 0, 8, 1, 9, 2, 10, 3, 11),
                          EDGEMOE_SHUFFLE(ab[0], cd[0], 4, 12, 5, 13, 6, 14, 7, 15),
                          EDGEMOE_SHUFFLE(ab[1], cd[1], 0, 8, 1, 9, 2, 10, 3, 11),
                          EDGEMOE_SHUFFLE(ab[1], cd[1], 4, 12, 5, 13, 6, 14, 7, 15)};
    static_assert(sizeof all == sizeof bytes);
    std::memcpy(bytes, all, sizeof all);
}

// Where four rows' scales go: of the blocks from `first_block` on, 256 columns at most.
class FourScales {
  public:
    [[gnu::always_inline]] FourScales(Format f, std::uint8_t* group, std::int64_t first_block,
                                      std::int64_t row)
        : block_bytes_(block_scale_bytes(f)),
          shared_(shared_scale_bytes(f) == 0 ? nullptr : group + shared_scale_offset(f, first_block)),
          first_(group + block_scale_offset(f, first_block)),
          row_(row) {}

    // Number i of those of one f16 a row, at `offset` of each block; notes rows whose number is not finite.
    [[gnu::always_inline]] void put_shared(int i, const Blocks& blocks, int offset, bool* is_finite) const {
        put_halves(shared_ + 2 * kRowGroup * i, blocks, offset, is_finite);
    }
    [[gnu::always_inline]] void put_block_halves(int i, const Blocks& blocks, int offset,
                                                 bool* is_finite) const {
        put_halves(first_ + 2 * kRowGroup * i, blocks, offset, is_finite);
    }
    [[gnu::always_inline]] void put_bytes(int block, int i, RowBytes bytes) const {
        std::memcpy(first_ + block * block_bytes_ + kRowGroup * i + row_, &bytes, sizeof bytes);
    }
    // Two numbers of six bits.
    [[gnu::always_inline]] void put_six_bits(int block, RowBytes first, RowBytes second) const {
        put_bytes(block, 0, first | (second >> 4 & 3 * kOnes) << 6);
        std::uint8_t* const nibbles = first_ + block * block_bytes_ + kRowGroup + row_ % 8;
        RowBytes both;
        std::memcpy(&both, nibbles, sizeof both);
        both |= (second & 15 * kOnes) << (row_ < 8 ? 0 : 4);
        std::memcpy(nibbles, &both, sizeof both);
    }

  private:
    [[gnu::always_inline]] void put_halves(std::uint8_t* to, const Blocks& blocks, int offset,
                                           bool* is_finite) const {
        for (int r = 0; r < kNumRows; ++r) {
            const std::uint16_t half = u16_at(blocks[r] + offset);
            std::memcpy(to + 2 * (row_ + r), &half, sizeof half);
            is_finite[r] &= (half & 0x7c00) != 0x7c00;
        }
    }

    std::int64_t block_bytes_;
    std::uint8_t *shared_, *first_;
    std::int64_t row_;
};

// Where the codes of four rows go, block after block.
template <Format f>
struct FourCodes {
    std::uint8_t* to;

    [[gnu::always_inline]] void put(int block, int chunk, QuadOfRows quads) const {
        std::memcpy(to + block * block_code_bytes(f) + chunk * kChunk, &quads, sizeof quads);
    }
};

// The 16 or 32 bytes of each row from `offset` on, as quads.
template <int count>
[[gnu::always_inline]] inline void load_block_quads(const Blocks& blocks, int offset, QuadOfRows* quads) {
    for (int i = 0; i < count; i += 16) load_quads(blocks, offset + i, quads + i / kQuad);
}

// 16 bytes with the codes of columns 0-15 in their low and of columns 16-31 in their high nibbles: as packed.
template <Format f>
[[gnu::always_inline]] inline void place_halves(const Blocks& blocks, int offset, int block,
                                                FourCodes<f> codes) {
    QuadOfRows quads[4];
    load_block_quads<16>(blocks, offset, quads);
    for (int c = 0; c < 4; ++c) codes.put(block, c, quads[c]);
}

// 32 bytes with the codes of block `low` in their low and of block `high` in their high nibbles.
template <Format f>
[[gnu::always_inline]] inline void place_nibbles(const Blocks& blocks, int offset, int low, int high,
                                                 FourCodes<f> codes) {
    QuadOfRows quads[kQuads];
    load_block_quads<32>(blocks, offset, quads);
    for (int c = 0; c < 4; ++c) {
        codes.put(low, c, (quads[c] & 15 * kOnes) | (quads[c + 4] & 15 * kOnes) << 4);
        codes.put(high, c, (quads[c] >> 4 & 15 * kOnes) | (quads[c + 4] & 240 * kOnes));
    }
}

// Of the bytes of n vectors, each n numbers of 8 / n bits: number i of vector j and number j of vector i
// change places.
template <int n>
[[gnu::always_inline]] inline void transpose_bits(QuadOfRows* v) {
    constexpr int kWidth = 8 / n;
    for (int apart = n / 2; apart > 0; apart /= 2) {
        const int shift = apart * kWidth;
        std::uint32_t mask = 0;
        for (int i = 0; i < n; ++i) {
            if ((i & apart) == 0) mask |= ((1u << kWidth) - 1) << i * kWidth;
        }
        for (int i = 0; i < n; ++i) {
            if ((i & apart) != 0) continue;
            const QuadOfRows differ = (v[i] >> shift ^ v[i + apart]) & mask * kOnes;
            v[i + apart] ^= differ;
            v[i] ^= differ << shift;
        }
    }
}

// 32 bytes with two bits of a column of four blocks from `first` on each; they go to chunks `chunk` and the
// next one.
template <Format f>
[[gnu::always_inline]] inline void place_pairs(const Blocks& blocks, int offset, int first, int chunk,
                                               FourCodes<f> codes) {
    QuadOfRows quads[kQuads];
    load_block_quads<32>(blocks, offset, quads);
    for (int c = 0; c < 2; ++c) {
        transpose_bits<4>(quads + 4 * c);
        for (int i = 0; i < 4; ++i) codes.put(first + i, chunk + c, quads[4 * c + i]);
    }
}

// 32 bytes with one bit of a column of each of eight blocks.
template <Format f>
[[gnu::always_inline]] inline void place_bits(const Blocks& blocks, int offset, int chunk,
                                              FourCodes<f> codes) {
    QuadOfRows quads[kQuads];
    load_block_quads<32>(blocks, offset, quads);
    transpose_bits<8>(quads);
    for (int i = 0; i < 8; ++i) codes.put(i, chunk, quads[i]);
}

// Packs one block of each row; a row with a weight that is not finite is noted.
template <Format f>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<f> codes, bool* is_finite);

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kQ4_0> codes, bool* is_finite) {
    place_halves(blocks, 2, 0, codes);
    scales.put_block_halves(0, blocks, 0, is_finite);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kIq4Nl> codes, bool* is_finite) {
    place_halves(blocks, 2, 0, codes);
    scales.put_block_halves(0, blocks, 0, is_finite);
}

bool is_finite_mxfp4_block(const std::uint8_t* block) {
    std::uint8_t codes[kBlock];
    for (int i = 0; i < kBlock; ++i) codes[i] = block[1 + i % 16] >> i / 16 * 4 & 15;
    return is_finite_mxfp4(block[0], codes);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kMxfp4> codes, bool* is_finite) {
    place_halves(blocks, 1, 0, codes);
    RowBytes exponents = 0;
    for (int r = 0; r < kNumRows; ++r) {
        exponents |= RowBytes{blocks[r][0]} << 8 * r;
        if (blocks[r][0] > kFiniteMxfp4) is_finite[r] &= is_finite_mxfp4_block(blocks[r]);
    }
    scales.put_bytes(0, 0, exponents);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kIq4Xs> codes, bool* is_finite) {
    for (int i = 0; i < 8; ++i) place_halves(blocks, 8 + 16 * i, i, codes);
    RowBytes bytes[16];  // what all share, the high bits of scales, their low bits, and codes
    load_bytes(blocks, 0, bytes);
    for (int i = 0; i < 8; ++i) {
        const RowBytes low = bytes[4 + i / 2] >> i % 2 * 4 & 15 * kOnes;
        const RowBytes high = bytes[2 + i / 4] >> i % 4 * 2 & 3 * kOnes;
        // Less 32, plus the zero of bytes.
        scales.put_bytes(i, 0, (low | high << 4) + (kByteScaleZero - 32) * kOnes);
    }
    scales.put_shared(0, blocks, 0, is_finite);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kQ2K> codes, bool* is_finite) {
    for (int i = 0; i < 2; ++i) place_pairs(blocks, 16 + 32 * i, 4 * i, 0, codes);
    RowBytes bytes[16];
    load_bytes(blocks, 0, bytes);
    for (int i = 0; i < 16; ++i) scales.put_bytes(i / 2, i % 2, bytes[i]);
    for (int i = 0; i < 2; ++i) scales.put_shared(i, blocks, 80 + 2 * i, is_finite);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kQ3K> codes, bool* is_finite) {
    for (int i = 0; i < 2; ++i) place_pairs(blocks, 32 + 32 * i, 4 * i, 0, codes);
    place_bits(blocks, 0, 2, codes);
    RowBytes bytes[16];
    load_bytes(blocks, 94, bytes);
    const RowBytes *low = bytes + 2, *high = low + 8;
    const auto scale = [=](int i) {
        return (low[i % 8] >> i / 8 * 4 & 15 * kOnes) | (high[i % 4] >> i / 4 * 2 & 3 * kOnes) << 4;
    };
    for (int i = 0; i < 8; ++i) scales.put_six_bits(i, scale(2 * i), scale(2 * i + 1));
    scales.put_shared(0, blocks, 108, is_finite);
}

// Scales and minimums of Q4_K and Q5_K: bytes 0-3 and 4-7 hold the first four with two bits of the last four
// above them, whose other four bits are in bytes 8-11.
[[gnu::always_inline]] inline void put_minimums(const Blocks& blocks, const FourScales& scales,
                                                bool* is_finite) {
    RowBytes bytes[16];
    load_bytes(blocks, 4, bytes);
    const RowBytes *d = bytes, *m = bytes + 4, *low = bytes + 8;
    for (int i = 0; i < 4; ++i) {
        scales.put_six_bits(i, d[i] & 63 * kOnes, m[i] & 63 * kOnes);
        scales.put_six_bits(4 + i, (low[i] & 15 * kOnes) | (d[i] >> 6 & 3 * kOnes) << 4,
                            (low[i] >> 4 & 15 * kOnes) | (m[i] >> 6 & 3 * kOnes) << 4);
    }
    for (int i = 0; i < 2; ++i) scales.put_shared(i, blocks, 2 * i, is_finite);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kQ4K> codes, bool* is_finite) {
    for (int i = 0; i < 4; ++i) place_nibbles(blocks, 16 + 32 * i, 2 * i, 2 * i + 1, codes);
    put_minimums(blocks, scales, is_finite);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kQ5K> codes, bool* is_finite) {
    for (int i = 0; i < 4; ++i) place_nibbles(blocks, 48 + 32 * i, 2 * i, 2 * i + 1, codes);
    place_bits(blocks, 16, 4, codes);
    put_minimums(blocks, scales, is_finite);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kQ6K> codes, bool* is_finite) {
    for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) {
            place_nibbles(blocks, 64 * i + 32 * j, 4 * i + j, 4 * i + j + 2, codes);
        }
        place_pairs(blocks, 128 + 32 * i, 4 * i, 4, codes);
    }
    RowBytes bytes[16];
    load_bytes(blocks, 192, bytes);
    for (int i = 0; i < 16; ++i) scales.put_bytes(i / 2, i % 2, bytes[i] ^ 128 * kOnes);
    scales.put_shared(0, blocks, 208, is_finite);
}

template <>
[[gnu::always_inline]] inline void pack_four(const Blocks& blocks, const FourScales& scales,
                                             FourCodes<Format::kTq2_0> codes, bool* is_finite) {
    for (int i = 0; i < 2; ++i) place_pairs(blocks, 32 * i, 4 * i, 0, codes);
    scales.put_shared(0, blocks, 64, is_finite);
}

// As of PackRows.
template <Format f>
EDGEMOE_FOR_EACH_ISA std::int64_t pack_rows_of(const std::uint8_t* blocks, std::int64_t row_bytes,
                                               std::int64_t count, std::int64_t cols, std::uint8_t* group,
                                               std::int64_t row) {
    constexpr int kBlockBytes = traits(f).block_bytes, kBlocks = traits(f).block_cols / kBlock;
    static constexpr std::uint8_t kZeros[kBlockBytes] = {};  // of rows that a group lacks
    FourCodes<f> codes = {group + group_header_bytes(f, cols) + row * kQuad};
    bool is_finite[kNumRows] = {true, true, true, true};
    for (std::int64_t block = 0; block < cols / kBlock; block += kBlocks) {
        Blocks four;
        for (std::int64_t r = 0; r < kNumRows; ++r) four[r] = r < count ? blocks + r * row_bytes : kZeros;
        // What comes from storage is in no cache, and four rows are too short for the processor to see far
        // ahead.
        for (std::int64_t r = 0; r < kNumRows; ++r) {
            for (int i = 0; i < kBlockBytes; i += kLineBytes) {
                __builtin_prefetch(blocks + (4 * kNumRows + r) * row_bytes + i, 0, 2);
            }
        }
        pack_four(four, FourScales(f, group, block, row), codes, is_finite);
        blocks += kBlockBytes;
        codes.to += kBlocks * block_code_bytes(f);
    }
    return std::find(is_finite, is_finite + count, false) - is_finite;
}

}  // namespace

PackRows* four_row_packer(Format f) {
    switch (f) {
        case Format::kMxfp4:
            return pack_rows_of<Format::kMxfp4>;
        case Format::kQ4_0:
            return pack_rows_of<Format::kQ4_0>;
        case Format::kIq4Nl:
            return pack_rows_of<Format::kIq4Nl>;
        case Format::kIq4Xs:
            return pack_rows_of<Format::kIq4Xs>;
        case Format::kQ2K:
            return pack_rows_of<Format::kQ2K>;
        case Format::kQ3K:
            return pack_rows_of<Format::kQ3K>;
        case Format::kQ4K:
            return pack_rows_of<Format::kQ4K>;
        case Format::kQ5K:
            return pack_rows_of<Format::kQ5K>;
        case Format::kQ6K:
            return pack_rows_of<Format::kQ6K>;
        case Format::kTq2_0:
            return pack_rows_of<Format::kTq2_0>;
        default:
            return nullptr;
    }
}

}  // namespace edgemoe
