// Packed matrices without Python, for every instruction set that runs here: each product against the plain
// meaning in decode.h, and bits that must not depend on the company. The comparison with NumPy is in
// tests/native/test_kernels.py; this file also runs under the sanitizers and, for ARM, under an emulator.
#include "kernels/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "core/read_memory.h"
#include "core/thread_pool.h"
#include "kernels/descent.h"
#include "kernels/exact_blocks.h"
#include "kernels/expert_ffn.h"
#include "kernels/matmul.h"
#include "kernels/quantize.h"
#include "tests/check.h"
#include "tests/random.h"

namespace edgemoe {
namespace {

struct Shape {
    std::int64_t rows, cols;
};
// Short last groups, single blocks, and widths of real models.
constexpr Shape kShapes[] = {{1, 32}, {3, 64}, {17, 160}, {33, 704}, {5, 2880}};
constexpr std::int64_t kTokens = 15;  // a full tile of 8, and one that is not; one of 16 that is not
// Full tiles of 16, and what may be left over.
constexpr std::int64_t kMoreTokens[] = {16, 17, 23, 27, 32};
constexpr std::int64_t kMostTokens = 32;

using testing::normal;

// The nearest shape that a format can have.
Shape fitting(Format f, Shape shape) {
    const std::int64_t block_cols = traits(f).block_cols;
    return {shape.rows, (shape.cols + block_cols - 1) / block_cols * block_cols};
}

// Where the 16-bit scales of an exact format's blocks lie; -1 for none.
std::pair<int, int> half_offsets(Format f) {
    switch (f) {
        case Format::kMxfp4:
        case Format::kNvfp4:
        case Format::kIq1M:
            return {-1, -1};
        case Format::kTq1_0:
            return {52, -1};
        case Format::kTq2_0:
            return {64, -1};
        case Format::kQ4_1:
        case Format::kQ5_1:
        case Format::kQ4K:
        case Format::kQ5K:
            return {0, 2};
        case Format::kQ2K:
            return {80, 82};
        case Format::kQ3K:
            return {108, -1};
        case Format::kQ6K:
            return {208, -1};
        default:
            return {0, -1};
    }
}

// Blocks of an exact format with any codes and scales of moderate size.
std::vector<std::uint8_t> random_blocks(Format f, Shape shape, unsigned seed) {
    const std::size_t size = traits(f).block_bytes;
    const std::size_t count = shape.rows * shape.cols / traits(f).block_cols;
    std::mt19937 generator(seed);
    std::vector<std::uint8_t> blocks(count * size);
    for (std::uint8_t& byte : blocks) byte = static_cast<std::uint8_t>(generator());
    const auto [first, second] = half_offsets(f);
    for (std::size_t i = 0; i < count; ++i) {
        std::uint8_t* const block = blocks.data() + i * size;
        if (f == Format::kMxfp4) block[0] = static_cast<std::uint8_t>(118 + generator() % 6);
        if (f == Format::kNvfp4) {
            for (int scale = 0; scale < 4; ++scale) block[scale] %= 127;
        }
        // The exponent of the f16 number that has a nibble in each of four words.
        if (f == Format::kIq1M) block[55] = static_cast<std::uint8_t>((block[55] & 0x8f) | 0x10);
        for (const int offset : {first, second}) {
            // The exponent of f16 numbers from 0.001 to 0.03.
            if (offset >= 0)
                block[offset + 1] =
                    static_cast<std::uint8_t>((block[offset + 1] & 0x83) | (5 + generator() % 5) << 2);
        }
    }
    return blocks;
}

// A matrix in memory that ends where the matrix ends, so that a sanitizer sees reads beyond it.
struct Packed {
    std::vector<std::uint8_t> bytes;
    Matrix matrix;

    Packed(Format f, Shape shape, unsigned seed)
        : bytes(static_cast<std::size_t>(packed_bytes(f, shape.rows, shape.cols))) {
        if (traits(f).is_rounded) {
            quantize(normal(shape.rows * shape.cols, seed).data(), shape.rows, shape.cols, f, nullptr,
                     bytes.data());
        } else {
            const std::vector<std::uint8_t> blocks = random_blocks(f, shape, seed);
            CHECK_EQUAL(pack_blocks(blocks.data(), shape.rows, shape.cols, f, bytes.data()), -1);
        }
        matrix = {bytes.data(), f, shape.rows, shape.cols};
    }
};

// The activations as low-bit kernels see them: rounded to 8 bits per block.
std::vector<double> as_seen(const std::vector<float>& x, bool is_rounded) {
    std::vector<double> seen(x.begin(), x.end());
    if (!is_rounded) return seen;
    for (std::size_t begin = 0; begin < x.size(); begin += kBlock) {
        float largest = 0;
        for (std::size_t i = begin; i < begin + kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
        for (std::size_t i = begin; i < begin + kBlock; ++i) {
            seen[i] = std::nearbyint(x[i] * (127.0f / largest)) * double{largest / 127.0f};
        }
    }
    return seen;
}

void check_product(const Kernels& kernels, Format f, Shape given) {
    const Shape shape = fitting(f, given);
    force_kernels(kernels.name);
    const auto [rows, cols] = shape;
    const Packed packed(f, shape, 1);
    const std::vector<float> x = normal(kTokens * cols, 2);
    std::vector<float> out(static_cast<std::size_t>(kTokens * rows));
    matmul(x.data(), kTokens, packed.matrix, out.data());
    const std::vector<double> seen = as_seen(x, is_low_bit(f));
    std::vector<float> row(static_cast<std::size_t>(cols));
    for (std::int64_t n = 0; n < rows; ++n) {
        dequantize_row(packed.bytes.data(), cols, f, n, row.data());
        float largest = 0;
        for (float w : row) largest = std::max(largest, std::fabs(w));
        for (std::int64_t t = 0; t < kTokens; ++t) {
            double expected = 0, size = 0;
            for (std::int64_t m = 0; m < cols; ++m) {
                const double value = seen[static_cast<std::size_t>(t * cols + m)];
                expected += row[static_cast<std::size_t>(m)] * value;
                // Scale times code and scale times zero are added apart: both may be as large as the row.
                size += (std::fabs(row[static_cast<std::size_t>(m)]) + largest) * std::fabs(value);
            }
            const double actual = out[static_cast<std::size_t>(t * rows + n)];
            // A sum of n rounded terms, whose errors grow like the root of their number.
            CHECK(std::fabs(actual - expected) <= size * 1.2e-7 * (2 + std::sqrt(double(cols)) / 4));
        }
    }
}

void for_every_isa_and_format(void (*body)(const Kernels&, Format)) {
    const Kernels& before = active_kernels();
    for (const Kernels* kernels : available_kernels()) {
        for (int f = 0; f < kNumFormats; ++f) body(*kernels, static_cast<Format>(f));
    }
    force_kernels(before.name);
}

TEST(the_vector_kernels_of_this_build_are_here) {
    // Every machine that the tests run on has them; a kernel that is not chosen would not be tested.
    CHECK(available_kernels().size() >= 2);
}

TEST(products_are_those_of_the_dequantised_weights) {
    for_every_isa_and_format([](const Kernels& kernels, Format f) {
        for (const Shape shape : kShapes) check_product(kernels, f, shape);
    });
}

TEST(a_token_has_the_same_bits_in_any_company) {
    for_every_isa_and_format([](const Kernels& kernels, Format f) {
        if (&kernels == scalar_kernels()) return;  // one token at a time, and slow under an emulator
        force_kernels(kernels.name);
        constexpr Shape shape = {50, 768};  // more columns than are unpacked at a time
        const Packed packed(f, shape, 3);
        const std::vector<float> x = normal(kMostTokens * shape.cols, 4);
        std::vector<float> all(kMostTokens * shape.rows), alone(kMostTokens * shape.rows);
        for (std::int64_t t = 0; t < kMostTokens; ++t) {
            matmul(x.data() + t * shape.cols, 1, packed.matrix, alone.data() + t * shape.rows);
        }
        std::vector<std::int64_t> counts(std::begin(kMoreTokens), std::end(kMoreTokens));
        for (std::int64_t count = 2; count <= kTokens; ++count) counts.push_back(count);
        for (const std::int64_t count : counts) {
            matmul(x.data(), count, packed.matrix, all.data());
            CHECK_EQUAL(std::memcmp(alone.data(), all.data(), count * shape.rows * sizeof(float)), 0);
        }
    });
}

TEST(all_vector_kernels_give_the_same_bits_for_formats_of_few_bits) {
    constexpr std::int64_t kCount = 27;
    constexpr Shape shape = {33, 768};
    const Kernels& before = active_kernels();
    const std::vector<const Kernels*> all = available_kernels();
    const std::vector<float> x = normal(kCount * shape.cols, 11);
    for (int f = 0; f < kNumFormats; ++f) {
        if (!is_low_bit(static_cast<Format>(f))) continue;
        const Packed packed(static_cast<Format>(f), shape, 12);
        std::vector<float> first(kCount * shape.rows), other(kCount * shape.rows);
        for (std::size_t i = 1; i < all.size(); ++i) {  // scalar kernels have no fused multiply-add
            force_kernels(all[i]->name);
            matmul(x.data(), kCount, packed.matrix, i == 1 ? first.data() : other.data());
            if (i > 1) CHECK(first == other);
        }
    }
    force_kernels(before.name);
}

TEST(experts_together_have_the_bits_of_single_calls_on_any_number_of_threads) {
    for_every_isa_and_format([](const Kernels& kernels, Format f) {
        force_kernels(kernels.name);
        constexpr std::int64_t kWidth = 256, kInner = 256, kTokens = 13;  // enough for a tile of 16
        const Packed gate(f, {kInner, kWidth}, 5), up(f, {kInner, kWidth}, 6), down(f, {kWidth, kInner}, 7);
        const std::vector<float> x = normal(kTokens * kWidth, 8);
        const std::vector<std::vector<std::int32_t>> rows = {
            {0}, {5, 2}, {1, 3, 4}, {0, 1, 2, 3, 5}, {12, 0, 7, 1, 6, 2, 5, 3, 4, 8, 11, 9, 10}};
        std::vector<float> alone(kTokens * kWidth), together(24 * kWidth);
        for (std::int64_t t = 0; t < kTokens; ++t) {
            expert_ffn(x.data() + t * kWidth, 1, {gate.matrix, up.matrix, down.matrix}, Activation::kSilu,
                       alone.data() + t * kWidth);
        }
        for (int threads : {1, 3}) {
            set_num_threads(threads);
            std::vector<ChosenExpert> chosen;
            float* out = together.data();
            for (const auto& of : rows) {
                const std::int64_t count = std::ssize(of);
                chosen.push_back({{gate.matrix, up.matrix, down.matrix}, of.data(), count, out});
                out += count * kWidth;
            }
            expert_ffns(x.data(), kTokens, chosen, Activation::kSilu);
            const float* found = together.data();
            for (const auto& of : rows) {
                for (const std::int32_t t : of) {
                    CHECK_EQUAL(std::memcmp(alone.data() + t * kWidth, found, kWidth * sizeof(float)), 0);
                    found += kWidth;
                }
            }
        }
        set_num_threads(2);
    });
}

TEST(read_memory_sees_every_word_once) {
    std::vector<std::uint64_t> words(3 * 8192 + 13);  // several pieces, and a last line that is not full
    std::uint64_t expected = 0;
    for (std::size_t i = 0; i < words.size(); ++i) expected += words[i] = i * 0x9e3779b97f4a7c15u;
    CHECK_EQUAL(read_memory(words.data(), static_cast<std::int64_t>(words.size())), expected);
}

// The sum over columns of (w - q) G (w - q)^T of one row.
double product_error(const std::vector<float>& difference, const std::vector<float>& gram) {
    const std::size_t cols = difference.size();
    double error = 0;
    for (std::size_t i = 0; i < cols; ++i) {
        for (std::size_t j = 0; j < cols; ++j) error += difference[i] * gram[i * cols + j] * difference[j];
    }
    return error;
}

TEST(refining_lowers_the_error_of_products_and_raises_that_of_no_row) {
    constexpr std::int64_t kRows = 17, kCols = 96, kInputs = 64;
    const std::vector<float> w = normal(kRows * kCols, 9), x = normal(kInputs * kCols, 10);
    std::vector<float> gram(kCols * kCols, 0.0f), row(kCols);
    for (std::int64_t i = 0; i < kCols; ++i) {
        for (std::int64_t j = 0; j < kCols; ++j) {
            for (std::int64_t t = 0; t < kInputs; ++t)
                gram[i * kCols + j] += x[t * kCols + i] * x[t * kCols + j];
        }
        gram[i * kCols + i] += 1;
    }
    for (int f = 0; f < kNumFormats; ++f) {
        const auto format = static_cast<Format>(f);
        if (!traits(format).is_refined) continue;
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(packed_bytes(format, kRows, kCols)));
        quantize(w.data(), kRows, kCols, format, nullptr, bytes.data());
        double before[kRows], total_before = 0, total_after = 0;
        for (int pass : {0, 1}) {
            for (std::int64_t r = 0; r < kRows; ++r) {
                dequantize_row(bytes.data(), kCols, format, r, row.data());
                for (std::int64_t i = 0; i < kCols; ++i) row[i] -= w[r * kCols + i];
                const double error = product_error(row, gram);
                (pass == 0 ? total_before : total_after) += error;
                if (pass == 0) before[r] = error;
                // Codes of a trellis are chosen for all rows of a group together.
                if (pass == 1 && !is_trellis(format)) CHECK(error <= before[r] * (1 + 1e-5));
            }
            if (pass == 0) refine(w.data(), kRows, kCols, format, gram.data(), bytes.data());
        }
        CHECK(total_after < 0.8 * total_before);
    }
}

TEST(a_large_weight_among_zeros_survives_every_width) {
    for (int f = 0; f < kNumFormats; ++f) {
        const auto format = static_cast<Format>(f);
        if (!traits(format).is_rounded) continue;
        std::vector<float> w(16 * 96, 0.0f), row(96);
        w[3 * 96 + 40] = 100;
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(packed_bytes(format, 16, 96)));
        quantize(w.data(), 16, 96, format, nullptr, bytes.data());
        dequantize_row(bytes.data(), 96, format, 3, row.data());
        CHECK(std::fabs(row[40] - 100) < (is_trellis(format) ? 15 : 10));
        // A trellis has no zero: what stands beside a large weight becomes a small one.
        CHECK(is_trellis(format) ? std::fabs(row[41]) < 10 : row[41] == 0);
        CHECK_EQUAL(row[0], 0.0f);
    }
}

}  // namespace
}  // namespace edgemoe

// kernels_test [PART OF A TEST'S NAME]
int main(int argc, char** argv) { return edgemoe::testing::run_all(argc > 1 ? argv[1] : ""); }
