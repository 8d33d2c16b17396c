// Quantisers: per block, every scale code near the one that spans the block is tried with the zeros that
// can follow from it, and the pair with the least weighted squared error wins. Trying the codes that are
// really stored makes the coarse scales of two and three bits cost little.
#include "kernels/quantize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/decode.h"
#include "kernels/trellis.h"

namespace edgemoe {
namespace {

constexpr int kMaxSpan = 32;  // weights that share a scale
constexpr int kPartials = 16;
// Zeros tried around the centre of the block's range, in codes, for every scale of q4.
constexpr float kZeroOffsets[] = {0.0f, -0.5f, -0.25f, 0.25f, 0.5f};

struct Span {
    float weights[kMaxSpan];
    float importance[kMaxSpan];
    int size;
    float lowest, highest;
};

struct Choice {
    float error = HUGE_VALF;
    float scale = 0, zero = 0;
    std::uint16_t scale_code = 0, zero_code = 0;
};

Span make_span(const float* w, const float* importance, int size) {
    Span span;
    span.size = size;
    span.lowest = span.highest = 0;
    for (int i = 0; i < size; ++i) {
        span.weights[i] = w[i];
        span.importance[i] = importance == nullptr ? 1.0f : importance[i];
        span.lowest = std::min(span.lowest, w[i]);
        span.highest = std::max(span.highest, w[i]);
    }
    return span;
}

[[gnu::always_inline]] inline float nearest_code(float w, float inverse, float zero, float largest_code) {
    const float code = std::min(std::max(w * inverse + zero + 0.5f, 0.0f), largest_code + 0.5f);
    return static_cast<float>(static_cast<int>(code));
}

// 16 at a time, whatever the width of the registers: the compiler takes as many as an instruction set needs,
// and sums have one order everywhere.
using Floats = float __attribute__((vector_size(4 * kPartials)));
using Ints = std::int32_t __attribute__((vector_size(4 * kPartials)));

// In pairs: a chain of additions would take longer than all the rest of an error.
[[gnu::always_inline]] inline float sum_of(const Floats& parts) {
    float sums[kPartials];
    std::memcpy(sums, &parts, sizeof parts);
    using Eight = float __attribute__((vector_size(32)));
    using Four = float __attribute__((vector_size(16)));
    Eight low, high;
    std::memcpy(&low, sums, sizeof low);
    std::memcpy(&high, sums + 8, sizeof high);
    low += high;
    Four first, last;
    std::memcpy(&first, &low, sizeof first);
    std::memcpy(&last, reinterpret_cast<const char*>(&low) + sizeof first, sizeof last);
    first += last;
    return (first[0] + first[2]) + (first[1] + first[3]);
}

[[gnu::always_inline]] inline float error_of(const Span& span, float scale, float zero, float largest_code) {
    const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
    const Floats lowest = {}, highest = lowest + (largest_code + 0.5f);
    Floats error = {};
    for (int i = 0; i < span.size; i += kPartials) {
        Floats w, importance;
        std::memcpy(&w, span.weights + i, sizeof w);
        std::memcpy(&importance, span.importance + i, sizeof importance);
        Floats code = w * inverse + zero + 0.5f;  // as nearest_code
        code = code < lowest ? lowest : code;
        code = code > highest ? highest : code;
        code = __builtin_convertvector(__builtin_convertvector(code, Ints), Floats);
        const Floats difference = w - scale * (code - zero);
        error += importance * difference * difference;
    }
    return sum_of(error);
}

// A format's grid: which scales and zeros can be stored.
struct Grid {
    Format format;
    int span_size;
    float largest_code;
    float largest_scale;  // relative to the row's base
    int num_scales;
    // The search goes over scales within these multiples of the spanning one: clipping outliers pays at few
    // bits, a little more than the span at many.
    float lowest_multiple, highest_multiple;

    float scale(int code) const {
        const auto byte = static_cast<std::uint8_t>(code);
        return format == Format::kQ2 || format == Format::kQ3 ? decode_e3m2(byte) : decode_e4m4(byte);
    }
    // The first code whose scale is at least so large, or the number of codes.
    int first_code_from(float least) const {
        int low = 0, high = num_scales;
        while (low < high) {
            const int middle = (low + high) / 2;
            if (scale(middle) < least) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }
    // Codes of the scales to try; the highest one spans the block wherever a code can.
    std::pair<int, int> scale_window(float spanning) const {
        const int high = std::min(first_code_from(spanning * highest_multiple), num_scales - 1);
        // The last code up to the lowest multiple; scales grow with their codes.
        const float lowest = std::nextafter(spanning * lowest_multiple, HUGE_VALF);
        return {std::max(std::min(first_code_from(lowest) - 1, high), 0), high};
    }
};

Grid grid_of(Format f) {
    switch (f) {
        case Format::kQ2:
            return {f, 16, 3, kLargestE3M2, 32, 0.42f, 1.0f};
        case Format::kQ3:
            return {f, 16, 7, kLargestE3M2, 32, 0.42f, 1.0f};
        case Format::kQ4:
            return {f, 32, 15, kLargestE4M4, 256, 0.65f, 1.0f};
        default:
            return {f, 16, 63, kLargestE4M4, 256, 0.9f, 1.3f};
    }
}

// The largest scale worth trying: with q4's free zero it reaches from the lowest to the highest weight,
// elsewhere an integral zero in the middle reaches the larger of the two sides.
float spanning_scale(const Grid& grid, const Span& span) {
    if (grid.format == Format::kQ4) return (span.highest - span.lowest) / grid.largest_code;
    const float steps = grid.format == Format::kQ6 ? 31 : (grid.largest_code + 1) / 2;
    return std::max(-span.lowest, span.highest) / steps;
}

[[gnu::always_inline]] inline void consider(const Grid& grid, const Span& span, float base, int scale_code,
                                            int zero_code, Choice& best) {
    Choice choice;
    choice.scale = base * grid.scale(scale_code);
    switch (grid.format) {
        case Format::kQ4:
            choice.zero = kZeroStepQ4 * static_cast<float>(zero_code);
            break;
        case Format::kQ6:
            choice.zero = static_cast<float>(traits(grid.format).zero);
            break;
        default:
            choice.zero = first_zero(grid.format) + kZeroStepQ23 * static_cast<float>(zero_code);
    }
    choice.error = error_of(span, choice.scale, choice.zero, grid.largest_code);
    choice.scale_code = static_cast<std::uint16_t>(scale_code);
    choice.zero_code = static_cast<std::uint16_t>(zero_code);
    // Words chosen by a mask: no processor foretells a branch on which of two errors is smaller.
    std::uint32_t words[sizeof(Choice) / 4], kept[sizeof(Choice) / 4];
    std::memcpy(words, &choice, sizeof choice);
    std::memcpy(kept, &best, sizeof best);
    const std::uint32_t mask = 0u - static_cast<std::uint32_t>(choice.error < best.error);
    for (std::size_t i = 0; i < sizeof(Choice) / 4; ++i) kept[i] ^= (kept[i] ^ words[i]) & mask;
    std::memcpy(&best, kept, sizeof best);
}

int zero_code_q4(float zero) {
    return static_cast<int>(std::clamp(std::nearbyint(zero / kZeroStepQ4), 0.0f, 255.0f));
}

// Tries the neighbours of q4's best pair, in steps of the stored zero.
[[gnu::always_inline]] inline void polish(const Grid& grid, const Span& span, float base, Choice& best) {
    for (int step : {2, 1}) {
        const int scale = best.scale_code, zero = best.zero_code;
        for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, grid.num_scales - 1); ++s) {
            for (int z : {zero - step, zero, zero + step}) {
                if (z >= 0 && z <= 255) consider(grid, span, base, s, z, best);
            }
        }
    }
}

EDGEMOE_FOR_EACH_ISA Choice search(const Grid& grid, const Span& span, float base) {
    Choice best;
    const auto [low, high] = grid.scale_window(base > 0 ? spanning_scale(grid, span) / base : 0);
    for (int code = low; code <= high; ++code) {
        if (grid.format == Format::kQ6) {
            consider(grid, span, base, code, 0, best);
        } else if (grid.format == Format::kQ4) {
            const float scale = base * grid.scale(code);
            if (scale <= 0) continue;
            const float centre = -(span.lowest + span.highest) / (2 * scale) + grid.largest_code / 2;
            for (const float offset : kZeroOffsets) {
                consider(grid, span, base, code, zero_code_q4(centre + offset), best);
            }
        } else {
            for (int zero = 0; zero < 8; ++zero) consider(grid, span, base, code, zero, best);
        }
    }
    if (grid.format == Format::kQ4 && best.error < HUGE_VALF) polish(grid, span, base, best);
    if (best.error < HUGE_VALF) return best;
    // A row of zeros: an integral zero makes it exact.
    consider(grid, span, 0, 0, grid.format == Format::kQ4 ? 128 : 2, best);
    return best;
}

void pack_codes(const Grid& grid, const Span& span, const Choice& choice, std::uint8_t* block_codes,
                std::int64_t row, std::int64_t first_col) {
    const float inverse = choice.scale > 0 ? 1.0f / choice.scale : 0.0f;
    for (int i = 0; i < span.size; ++i) {
        const float code = nearest_code(span.weights[i], inverse, choice.zero, grid.largest_code);
        set_code(grid.format, block_codes, row, first_col + i, static_cast<std::uint8_t>(code));
    }
}

void quantize_low_bit_row(const float* w, std::int64_t cols, const Grid& grid, const float* importance,
                          std::uint8_t* group, std::int64_t row) {
    const int size = grid.span_size;
    float largest = 0;
    for (std::int64_t col = 0; col < cols; col += size) {
        largest = std::max(largest, spanning_scale(grid, make_span(w + col, nullptr, size)));
    }
    // Rounded up, so that the largest block is within reach.
    const std::uint16_t stored = bf16_of_float(largest / grid.largest_scale * (1 + 1.0f / 256));
    std::memcpy(group + 2 * row, &stored, sizeof stored);
    const float base = float_of_bf16(stored);
    std::uint8_t* scales = group + 2 * kRowGroup;
    std::uint8_t* codes = group + group_header_bytes(grid.format, cols);
    for (std::int64_t col = 0; col < cols; col += size) {
        const Span span = make_span(w + col, importance == nullptr ? nullptr : importance + col, size);
        const Choice choice = search(grid, span, base);
        const std::int64_t block = col / kBlock;
        std::uint8_t* place = scales + block * block_scale_bytes(grid.format) + row;
        if (grid.format == Format::kQ4) {
            place[0] = static_cast<std::uint8_t>(choice.scale_code);
            place[kRowGroup] = static_cast<std::uint8_t>(choice.zero_code);
        } else {
            const bool has_zero = grid.format != Format::kQ6;
            place[col % kBlock / 16 * kRowGroup] = static_cast<std::uint8_t>(
                has_zero ? choice.scale_code << 3 | choice.zero_code : choice.scale_code);
        }
        pack_codes(grid, span, choice, codes + block * block_code_bytes(grid.format), row, col % kBlock);
    }
}

void quantize_q8_row(const float* w, std::int64_t cols, std::uint8_t* group, std::int64_t row) {
    constexpr auto kZero = static_cast<float>(traits(Format::kQ8).zero);
    std::uint8_t* codes = group + group_header_bytes(Format::kQ8, cols);
    for (std::int64_t block = 0; block < cols / kBlock; ++block) {
        const float* values = w + block * kBlock;
        float largest = 0;
        for (std::int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(values[i]));
        const std::uint16_t stored = f16_of_float(largest / 127);
        std::memcpy(group + block * block_scale_bytes(Format::kQ8) + 2 * row, &stored, sizeof stored);
        const float scale = float_of_f16(stored);
        for (std::int64_t i = 0; i < kBlock; ++i) {
            const float code = scale > 0 ? nearest_code(values[i], 1 / scale, kZero, 255) : kZero;
            set_code(Format::kQ8, codes + block * block_code_bytes(Format::kQ8), row, i,
                     static_cast<std::uint8_t>(code));
        }
    }
}

void copy_row(const float* w, std::int64_t cols, Format f, std::uint8_t* group, std::int64_t row) {
    for (std::int64_t col = 0; col < cols; ++col) {
        const std::int64_t index = col * kRowGroup + row;
        if (f == Format::kF32) {
            std::memcpy(group + 4 * index, w + col, sizeof(float));
        } else {
            const std::uint16_t half = f == Format::kF16 ? f16_of_float(w[col]) : bf16_of_float(w[col]);
            std::memcpy(group + 2 * index, &half, sizeof half);
        }
    }
}

}  // namespace

void quantize(const float* w, std::int64_t rows, std::int64_t cols, Format format, const float* importance,
              std::uint8_t* packed) {
    const std::vector<float> zeros(static_cast<std::size_t>(cols), 0.0f);
    parallel_for(num_groups(rows), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t g = begin; g < end; ++g) {
            std::uint8_t* group = packed + g * group_bytes(format, cols);
            std::memset(group, 0, static_cast<std::size_t>(group_bytes(format, cols)));
            if (is_trellis(format)) {
                const std::int64_t first = g * kRowGroup;
                quantize_trellis_group(w + first * cols, std::min(kRowGroup, rows - first), cols, format,
                                       importance, group);
                continue;
            }
            for (std::int64_t lane = 0; lane < kRowGroup; ++lane) {
                const std::int64_t row = g * kRowGroup + lane;
                const float* values = row < rows ? w + row * cols : zeros.data();
                if (!is_low_bit(format)) {
                    copy_row(values, cols, format, group, lane);
                } else if (format == Format::kQ8) {
                    quantize_q8_row(values, cols, group, lane);
                } else {
                    quantize_low_bit_row(values, cols, grid_of(format), importance, group, lane);
                }
            }
        }
    });
}

void dequantize_row(const std::uint8_t* packed, std::int64_t cols, Format f, std::int64_t row, float* out) {
    const std::uint8_t* group = packed + row / kRowGroup * group_bytes(f, cols);
    const std::int64_t lane = row % kRowGroup;
    for (std::int64_t col = 0; col < cols; ++col) {
        out[col] =
            is_low_bit(f) ? decode_weight(f, group, cols, lane, col) : decode_value(f, group, lane, col);
    }
}

}  // namespace edgemoe
