// Where each block type of ggml has its codes and scales, for those whose blocks are packed four rows at a
// time (four_rows.h). By the definitions of the gguf library.
#include "kernels/four_rows.h"

#include <algorithm>

#include "kernels/clones.h"

namespace edgemoe {
namespace {

constexpr int kLineBytes = 64;  // of the caches

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
