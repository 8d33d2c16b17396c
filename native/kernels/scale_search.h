// The search for the scale and the zero of a block at 2 to 6 bits: every scale code near the one that spans
// the block is tried with the zeros that can follow from it, and the pair with the least weighted squared
// error wins. Trying the codes that are really stored makes the coarse scales of two and three bits cost
// little.
//
// Lanes are rows of a group; each has its own base, scale and zero.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/group_lanes.h"
#include "kernels/layout.h"

namespace edgemoe {

// Zeros tried around the centre of the block's range, in codes, for every scale of q4. The centre is the last
// and so wins among equals.
constexpr float kZeroOffsets[] = {0.5f, 0.25f, -0.25f, -0.5f, 0.0f};
constexpr int kNumZerosQ23 = 8;
// More than what the rounding of sums can make of two errors that are compared.
constexpr float kRoundingMargin = 1.0001f;
constexpr int kLargestZeroQ4 = 255;
constexpr float kLargestError = std::numeric_limits<float>::max();

// A format's grid: which scales and zeros can be stored.
struct Grid {
    int span_size;  // columns that share a scale
    float largest_code;
    float steps;          // of a scale, between what it spans
    float largest_scale;  // relative to the row's base
    int num_scales;
    int scale_shift;  // codes of scales are the first bits of floats, less those of the first scale
    std::int32_t first_scale;
    // The search goes over scales within these multiples of the spanning one: clipping outliers pays at few
    // bits, a little more than the span at many.
    float lowest_multiple, highest_multiple;
};

constexpr Grid grid_of(Format f) {
    constexpr std::int32_t kFirstE3M2 = (127 - kBiasE3M2) << 23, kFirstE4M4 = (127 - kBiasE4M4) << 23;
    switch (f) {
        case Format::kQ2:
            return {16, 3, 2, kLargestE3M2, 32, 21, kFirstE3M2, 0.42f, 1.0f};
        case Format::kQ3:
            return {16, 7, 4, kLargestE3M2, 32, 21, kFirstE3M2, 0.42f, 1.0f};
        case Format::kQ4:
            return {32, 15, 15, kLargestE4M4, 256, 19, kFirstE4M4, 0.65f, 1.0f};
        default:
            return {16, 63, 31, kLargestE4M4, 256, 19, kFirstE4M4, 0.9f, 1.3f};
    }
}

// Columns that share a scale.
template <int lanes, int size>
struct Span {
    using Floats = typename Lanes<lanes>::Floats;

    Floats weights[size];
    float importance[size];
    Floats below, above;  // how far weights reach to either side of nothing
};

// The same in units of a scale, for which zeros are tried.
template <int lanes, int size>
struct Scaled {
    using Floats = typename Lanes<lanes>::Floats;

    Floats scale;
    Floats weights[size];
};

template <int lanes>
struct Choice {
    typename Lanes<lanes>::Floats error;
    typename Lanes<lanes>::Ints scale_code, zero_code;
};

template <typename Floats>
[[gnu::always_inline]] inline void larger_of(const Floats& a, const Floats& b, Floats& out) {
    out = a < b ? b : a;
}

template <typename Ints>
[[gnu::always_inline]] inline void clamp(Ints& values, int lowest, int highest) {
    const Ints low = Ints{} + lowest, high = Ints{} + highest;
    values = values < low ? low : values;
    values = values > high ? high : values;
}

template <int lanes, int size>
[[gnu::always_inline]] inline void find_reach(Span<lanes, size>& span) {
    span.below = span.above = typename Lanes<lanes>::Floats{};
    for (const auto& weights : span.weights) {
        const auto opposite = -weights;
        larger_of(span.below, opposite, span.below);
        larger_of(span.above, weights, span.above);
    }
}

template <int lanes, int size>
[[gnu::always_inline]] inline void divide(const Span<lanes, size>& span,
                                          const typename Lanes<lanes>::Floats& scale,
                                          Scaled<lanes, size>& scaled) {
    using Floats = typename Lanes<lanes>::Floats;
    scaled.scale = scale;
    const Floats inverse = scale > Floats{} ? 1.0f / scale : Floats{};
    for (int i = 0; i < size; ++i) scaled.weights[i] = span.weights[i] * inverse;
}

template <typename Floats, typename Ints>
[[gnu::always_inline]] inline void nearest_code(const Floats& weight_over_scale, const Floats& zero,
                                                float largest_code, Ints& code) {
    const Floats highest = Floats{} + (largest_code + 0.5f);
    Floats found = weight_over_scale + zero + 0.5f;
    found = found < highest ? found : highest;
    code = __builtin_convertvector(found, Ints);
    code = code > Ints{} ? code : Ints{};
}

// The errors of columns `first`, first + step and so on, added in pairs: a chain of additions would take
// longer than all the rest.
template <int first, int step, int lanes, int size, typename Floats>
[[gnu::always_inline]] inline void add_errors(const Span<lanes, size>& span,
                                              const Scaled<lanes, size>& scaled, const Floats& zero,
                                              float largest_code, Floats& sum) {
    if constexpr (step == size) {
        typename Lanes<lanes>::Ints code;
        nearest_code(scaled.weights[first], zero, largest_code, code);
        const Floats restored = scaled.scale * (__builtin_convertvector(code, Floats) - zero);
        const Floats difference = span.weights[first] - restored;
        sum = span.importance[first] * difference * difference;
    } else {
        Floats other;
        add_errors<first, 2 * step>(span, scaled, zero, largest_code, sum);
        add_errors<first + step, 2 * step>(span, scaled, zero, largest_code, other);
        sum += other;
    }
}

// The code of q4's zero that is nearest, to even where two are.
template <typename Floats, typename Ints>
[[gnu::always_inline]] inline void nearest_zero_q4(const Floats& zero, Ints& code) {
    constexpr float kNoFraction = 0x1p23f;  // floats from here on are integers
    const Floats lowest = {}, highest = lowest + kLargestZeroQ4;
    Floats found = zero / kZeroStepQ4;
    found = found > lowest ? found : lowest;
    found = found < highest ? found : highest;
    found = found + kNoFraction - kNoFraction;
    code = __builtin_convertvector(found, Ints);
}

template <int lanes, Format f>
class Search {
    using Floats = typename Lanes<lanes>::Floats;
    using Ints = typename Lanes<lanes>::Ints;

  public:
    static constexpr Grid kGrid = grid_of(f);
    static constexpr int kSize = kGrid.span_size;

    // The largest scale worth trying: with q4's free zero it reaches from the lowest to the highest weight,
    // elsewhere an integral zero in the middle reaches the larger of the two sides.
    [[gnu::always_inline]] static void spanning_scale(const Span<lanes, kSize>& span, Floats& scale) {
        if constexpr (f == Format::kQ4) {
            scale = (span.above + span.below) / kGrid.steps;
        } else {
            larger_of(span.below, span.above, scale);
            scale /= kGrid.steps;
        }
    }

    [[gnu::always_inline]] static void decode_scale(const Floats& base, const Ints& code, Floats& scale) {
        const Ints bits = (code << kGrid.scale_shift) + kGrid.first_scale;
        std::memcpy(&scale, &bits, sizeof scale);
        scale *= base;
    }

    [[gnu::always_inline]] static void decode_zero(const Ints& code, Floats& zero) {
        if constexpr (f == Format::kQ4) {
            zero = kZeroStepQ4 * __builtin_convertvector(code, Floats);
        } else if constexpr (f == Format::kQ6) {
            zero = Floats{} + static_cast<float>(traits(f).zero);
        } else {
            zero = first_zero(f) + kZeroStepQ23 * __builtin_convertvector(code, Floats);
        }
    }

    // `span` has its reach; each row of it gets its best pair. A row of zeros gets an integral zero, which
    // makes it exact.
    [[gnu::always_inline]] Search(const Span<lanes, kSize>& span, const Floats& base)
        : span_(span), base_(base) {
        best_.error = Floats{} + kLargestError;
        best_.scale_code = Ints{};
        best_.zero_code = Ints{} + (f == Format::kQ4 ? 128 : 2);
        // Codes fall, and of equal pairs the last is kept.
        Ints first, code;
        find_window(first, code);
        for (int left = steps_between(first, code); left >= 0 && may_improve(code); --left) {
            consider_scale(code);
            code -= 1;
            code = code < first ? first : code;
        }
        if constexpr (f == Format::kQ4) polish();
    }

    const Ints& scale_code() const { return best_.scale_code; }
    const Ints& zero_code() const { return best_.zero_code; }

    // Codes of the columns with the scale and the zero that were found.
    [[gnu::always_inline]] void find_codes(Ints* codes) const {
        Floats scale, zero;
        decode_scale(base_, best_.scale_code, scale);
        scale = best_.error < kLargestError ? scale : Floats{};
        decode_zero(best_.zero_code, zero);
        Scaled<lanes, kSize> scaled;
        divide(span_, scale, scaled);
        for (int i = 0; i < kSize; ++i) nearest_code(scaled.weights[i], zero, kGrid.largest_code, codes[i]);
    }

  private:
    // First and last code of the scales to try; the last one spans the block wherever a code can, the first
    // is the last up to the lowest multiple. Positive floats have the order of their bits.
    [[gnu::always_inline]] void find_window(Ints& first, Ints& last) const {
        Floats spanning;
        spanning_scale(span_, spanning);
        spanning = base_ > Floats{} ? spanning / base_ : Floats{};
        const Floats lowest = spanning * kGrid.lowest_multiple, highest = spanning * kGrid.highest_multiple;
        std::memcpy(&first, &lowest, sizeof first);
        std::memcpy(&last, &highest, sizeof last);
        first = (first - kGrid.first_scale) >> kGrid.scale_shift;
        last = (last - kGrid.first_scale + ((1 << kGrid.scale_shift) - 1)) >> kGrid.scale_shift;
        clamp(first, 0, kGrid.num_scales - 1);
        clamp(last, 0, kGrid.num_scales - 1);
    }

    [[gnu::always_inline]] static int steps_between(const Ints& first, const Ints& last) {
        const Ints steps = last - first;
        int most = 0;
        for (int row = 0; row < lanes; ++row) most = std::max(most, static_cast<int>(steps[row]));
        return most;
    }

    // Whether any row could do better with a scale so small, by what it clips whatever the zero.
    [[gnu::always_inline]] bool may_improve(const Ints& code) const {
        if constexpr (f == Format::kQ2 || f == Format::kQ3) {
            Floats reach, clipped = {};
            decode_scale(base_, code, reach);
            reach *= (kGrid.largest_code - first_zero(f)) * kRoundingMargin;
            for (int i = 0; i < kSize; ++i) {
                const Floats w = span_.weights[i], size = w < Floats{} ? -w : w;
                Floats beyond = size - reach;
                beyond = beyond > Floats{} ? beyond : Floats{};
                clipped += span_.importance[i] * beyond * beyond;
            }
            Ints improves = clipped <= best_.error * kRoundingMargin ? Ints{} + 1 : Ints{};
            std::uint64_t words[sizeof improves / 8], any = 0;
            std::memcpy(words, &improves, sizeof words);
            for (const std::uint64_t word : words) any |= word;
            return any != 0;
        }
        return true;
    }

    [[gnu::always_inline]] void begin_scale(const Ints& code) {
        Floats scale;
        decode_scale(base_, code, scale);
        divide(span_, scale, scaled_);
    }

    [[gnu::always_inline]] void consider_scale(const Ints& code) {
        begin_scale(code);
        if constexpr (f == Format::kQ6) {
            consider(code, Ints{});
        } else if constexpr (f == Format::kQ4) {
            const Floats centre = -(span_.above - span_.below) / (2 * scaled_.scale) + kGrid.largest_code / 2;
            for (const float offset : kZeroOffsets) {
                Ints zero;
                nearest_zero_q4(centre + offset, zero);
                consider(code, zero);
            }
        } else {
            for (int zero = kNumZerosQ23 - 1; zero >= 0; --zero) consider(code, Ints{} + zero);
        }
    }

    // Of equal pairs the last one is kept, or the first.
    template <bool keeps_last = true>
    [[gnu::always_inline]] void consider(const Ints& scale_code, const Ints& zero_code) {
        Floats zero, error;
        decode_zero(zero_code, zero);
        add_errors<0, 1>(span_, scaled_, zero, kGrid.largest_code, error);
        if constexpr (f == Format::kQ4) {
            const Floats none = Floats{} + HUGE_VALF;
            error = scaled_.scale > Floats{} ? error : none;
            error = zero_code < Ints{} ? none : error;
            error = zero_code > Ints{} + kLargestZeroQ4 ? none : error;
        }
        const Floats limit = best_.error;
        if constexpr (keeps_last) {
            best_.scale_code = error <= limit ? scale_code : best_.scale_code;
            best_.zero_code = error <= limit ? zero_code : best_.zero_code;
        } else {
            best_.scale_code = error < limit ? scale_code : best_.scale_code;
            best_.zero_code = error < limit ? zero_code : best_.zero_code;
        }
        best_.error = error < limit ? error : limit;
    }

    // Tries the neighbours of q4's best pair, in steps of the stored zero.
    [[gnu::always_inline]] void polish() {
        for (int step = 2; step >= 1; --step) {
            const Ints scale = best_.scale_code, zero = best_.zero_code;
            for (int s = -1; s <= 1; ++s) {
                Ints code = scale + s;
                clamp(code, 0, kGrid.num_scales - 1);
                begin_scale(code);
                for (int z = -step; z <= step; z += step) consider<false>(code, zero + z);
            }
        }
    }

    const Span<lanes, kSize>& span_;
    const Floats& base_;
    Scaled<lanes, kSize> scaled_;
    Choice<lanes> best_;
};

}  // namespace edgemoe
