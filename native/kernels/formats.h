// Every fact of a storage format in one row. A new format is a row at the end: stores and Python know formats
// by name, so stores that lack it stay readable.
//
// Rounded formats are ours: quantize() makes them of floats. Exact ones hold what the blocks of other engines
// hold, value for value, and are made of such blocks alone (exact_blocks.h).
#pragma once

#include <cstdint>

namespace edgemoe {

// clang-format off
enum class Format : int {
    kQ2, kQ3, kQ4, kQ6, kQ8, kBf16, kF16, kF32,
    kMxfp4, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ2K, kQ3K, kQ4K, kQ5K, kQ6K, kIq4Nl, kIq4Xs,
    kT2, kT3,
    kNvfp4, kTq1_0, kTq2_0, kIq1S, kIq1M, kIq2Xxs, kIq2Xs, kIq2S, kIq3Xxs, kIq3S,
};

// How the scales of 16 rows x 32 columns are written; layout.h has the bytes.
enum class Scales {
    kNone,           // values are stored as they are
    kE3M2Zeros,      // per 16 columns: a 5-bit float and a 3-bit zero
    kE4M4Zeros,      // an 8-bit float and an 8-bit zero
    kE4M4,           // per 16 columns: an 8-bit float
    kF16,            // one f16
    kF16Mins,        // f16 scale and f16 minimum
    kE8M0,           // a power of two
    kBytes,          // an integer of 8 bits, times f16 of 256 columns
    kByteHalves,     // per 16 columns: the same
    kNibbleHalves,   // per 16 columns: 4-bit scale and minimum, times f16 of 256 columns each
    kSixBitHalves,   // per 16 columns: an integer of 6 bits, times f16 of 256 columns
    kSixBitMins,     // 6-bit scale and minimum, times f16 of 256 columns each
    kNibbles,        // one of 16 integers, the number of which has 4 bits
    kShared,         // one f16 for 256 columns
    kUe4M3,          // per 16 columns: a float of 8 bits, of which one is no sign; and f32 for the row
    kOdd,            // an odd number of 5 bits, times f16 of 256 columns
    kOddHalves,      // per 16 columns: the same
};

// What a code stands for. The numbers of grids are points of 4 or 8 columns: codes are numbers of points, and signs.
enum class Values {
    kCodes,  // itself
    kE2M1,   // a 4-bit float, doubled: 0 1 2 3 4 6 8 12 and the negatives
    kIq4,    // one of 16 integers of IQ4_NL
    kTrellis8, kTrellis16,  // with its neighbours', one of so many integers (trellis.h)
    kGrid1, kGrid2Xxs, kGrid2Xs, kGrid2S, kGrid3Xxs, kGrid3S,
};

// How the points of a grid are chosen (grids.h has the points).
struct GridTraits {
    int cols;        // of a point
    int high_bits;   // of the number of a point beyond 8, which the code has with the scales of its block
    bool has_signs;  // one a column; else the last of the high bits raises the whole point
    int value_bits;
    float unit;      // of scales: they are odd multiples of it
};

struct FormatTraits {
    const char* name;
    int bits;               // of a code, or of a value that is stored as it is
    Scales scales;
    int zero;               // taken off every value, where that is the same integer everywhere
    Values values;
    bool is_rounded;        // quantize() makes it
    bool is_refined;        // it pays to choose its codes together (descent.h)
    const char* block_type; // block type of GGUF that it holds value for value, or nullptr
    int block_cols;         // columns in such a block: rows are multiples of it
    int block_bytes;        // bytes of such a block
};

// Table and functions are of each file that includes them: objects of single instruction sets may export no function
// or table that the linker could take for the others' (scripts/check-symbols).
static constexpr FormatTraits kFormats[] = {
    {"q2",     2,  Scales::kE3M2Zeros,    0,   Values::kCodes, true,  true,  nullptr,  32,  0},
    {"q3",     3,  Scales::kE3M2Zeros,    0,   Values::kCodes, true,  true,  nullptr,  32,  0},
    {"q4",     4,  Scales::kE4M4Zeros,    0,   Values::kCodes, true,  true,  nullptr,  32,  0},
    {"q6",     6,  Scales::kE4M4,         32,  Values::kCodes, true,  true,  nullptr,  32,  0},
    {"q8",     8,  Scales::kF16,          128, Values::kCodes, true,  false, "Q8_0",   32,  34},
    {"bf16",   16, Scales::kNone,         0,   Values::kCodes, true,  false, "BF16",   32,  64},
    {"f16",    16, Scales::kNone,         0,   Values::kCodes, true,  false, "F16",    32,  64},
    {"f32",    32, Scales::kNone,         0,   Values::kCodes, true,  false, "F32",    32,  128},
    {"mxfp4",  4,  Scales::kE8M0,         16,  Values::kE2M1,  false, false, "MXFP4",  32,  17},
    {"q4_0",   4,  Scales::kF16,          8,   Values::kCodes, false, false, "Q4_0",   32,  18},
    {"q4_1",   4,  Scales::kF16Mins,      0,   Values::kCodes, false, false, "Q4_1",   32,  20},
    {"q5_0",   5,  Scales::kF16,          16,  Values::kCodes, false, false, "Q5_0",   32,  22},
    {"q5_1",   5,  Scales::kF16Mins,      0,   Values::kCodes, false, false, "Q5_1",   32,  24},
    {"q2_k",   2,  Scales::kNibbleHalves, 0,   Values::kCodes, false, false, "Q2_K",   256, 84},
    {"q3_k",   3,  Scales::kSixBitHalves, 4,   Values::kCodes, false, false, "Q3_K",   256, 110},
    {"q4_k",   4,  Scales::kSixBitMins,   0,   Values::kCodes, false, false, "Q4_K",   256, 144},
    {"q5_k",   5,  Scales::kSixBitMins,   0,   Values::kCodes, false, false, "Q5_K",   256, 176},
    {"q6_k",   6,  Scales::kByteHalves,   32,  Values::kCodes, false, false, "Q6_K",   256, 210},
    {"iq4_nl", 4,  Scales::kF16,          128, Values::kIq4,   false, false, "IQ4_NL", 32,  18},
    {"iq4_xs", 4,  Scales::kBytes,        128, Values::kIq4,   false, false, "IQ4_XS", 256, 136},
    {"t2",     2,  Scales::kNibbles,      16,  Values::kTrellis8,  true, true, nullptr, 32, 0},
    {"t3",     3,  Scales::kNibbles,      32,  Values::kTrellis16, true, true, nullptr, 32, 0},
    {"nvfp4",  4,  Scales::kUe4M3,        16,  Values::kE2M1,  false, false, "NVFP4",  64,  36},
    {"tq1_0",  2,  Scales::kShared,       1,   Values::kCodes, false, false, "TQ1_0",  256, 54},
    {"tq2_0",  2,  Scales::kShared,       1,   Values::kCodes, false, false, "TQ2_0",  256, 66},
    {"iq1_s",  1,  Scales::kOdd,          17,  Values::kGrid1, false, false, "IQ1_S",  256, 50},
    {"iq1_m",  1,  Scales::kOddHalves,    17,  Values::kGrid1, false, false, "IQ1_M",  256, 56},
    {"iq2_xxs", 2, Scales::kOdd,          64,  Values::kGrid2Xxs, false, false, "IQ2_XXS", 256, 66},
    {"iq2_xs", 2,  Scales::kOddHalves,    64,  Values::kGrid2Xs,  false, false, "IQ2_XS",  256, 74},
    {"iq2_s",  2,  Scales::kOddHalves,    64,  Values::kGrid2S,   false, false, "IQ2_S",   256, 82},
    {"iq3_xxs", 3, Scales::kOdd,          64,  Values::kGrid3Xxs, false, false, "IQ3_XXS", 256, 98},
    {"iq3_s",  3,  Scales::kOdd,          16,  Values::kGrid3S,   false, false, "IQ3_S",   256, 110},
};
inline constexpr int kNumFormats = static_cast<int>(sizeof kFormats / sizeof *kFormats);
static_assert(kNumFormats == static_cast<int>(Format::kIq3S) + 1);
// clang-format on

static constexpr const FormatTraits& traits(Format f) { return kFormats[static_cast<int>(f)]; }

// Scales and codes, multiplied with activations in 8 bits; else floats.
static constexpr bool is_low_bit(Format f) { return traits(f).scales != Scales::kNone; }

// Scales are relative to one of the whole row.
static constexpr bool has_base(Format f) {
    const Scales s = traits(f).scales;
    return s == Scales::kE3M2Zeros || s == Scales::kE4M4Zeros || s == Scales::kE4M4 || s == Scales::kNibbles;
}

static constexpr int code_bits(Format f) { return traits(f).bits; }

// Codes have a meaning only together with those of their quad.
static constexpr bool is_trellis(Format f) {
    return traits(f).values == Values::kTrellis8 || traits(f).values == Values::kTrellis16;
}

static constexpr bool has_grid(Format f) { return traits(f).values >= Values::kGrid1; }
[[gnu::always_inline]] static constexpr GridTraits grid_traits(Format f) {
    switch (traits(f).values) {
        case Values::kGrid1:
            return {8, 4, false, 5, 0.125f};
        case Values::kGrid2Xxs:
            return {8, 0, true, 7, 0.125f};
        case Values::kGrid2Xs:
            return {8, 1, true, 7, 0.125f};
        case Values::kGrid2S:
            return {8, 2, true, 7, 0.125f};
        case Values::kGrid3Xxs:
            return {4, 0, true, 7, 0.25f};
        default:
            return {4, 1, true, 5, 1.0f};
    }
}

// Bits of the largest value that takes part in integer products.
static constexpr int value_bits(Format f) {
    if (has_grid(f)) return grid_traits(f).value_bits;
    switch (traits(f).values) {
        case Values::kCodes:
            return code_bits(f);
        case Values::kE2M1:
        case Values::kTrellis8:
            return 5;
        case Values::kTrellis16:
            return 6;
        default:
            return 8;
    }
}

}  // namespace edgemoe
