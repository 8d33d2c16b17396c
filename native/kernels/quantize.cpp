// Quantisers of whole groups: bases of rows, then the scales, zeros and codes of one block after the other.
#include "kernels/quantize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/decode.h"
#include "kernels/group_lanes.h"
#include "kernels/row_codes.h"
#include "kernels/scale_search.h"
#include "kernels/trellis.h"

namespace edgemoe {
namespace {

// Rounds as many rows of a group as there are lanes.
template <int lanes>
class RowsQuantiser {
    using Floats = typename Lanes<lanes>::Floats;
    using Ints = typename Lanes<lanes>::Ints;

  public:
    RowsQuantiser(const GroupRows& rows, std::int64_t first, std::uint8_t* group)
        : rows_(rows), first_(first), group_(group) {}

    [[gnu::always_inline]] void quantize(Format format) {
        switch (format) {
            case Format::kQ2:
                return quantize_low_bit<Format::kQ2>();
            case Format::kQ3:
                return quantize_low_bit<Format::kQ3>();
            case Format::kQ4:
                return quantize_low_bit<Format::kQ4>();
            case Format::kQ6:
                return quantize_low_bit<Format::kQ6>();
            default:
                return quantize_q8();
        }
    }

  private:
    template <int size>
    [[gnu::always_inline]] void load_span(std::int64_t col, Span<lanes, size>& span) const {
        for (int row = 0; row < lanes; ++row) {
            const float* values = rows_.values[first_ + row] + col;
            for (int i = 0; i < size; ++i) span.weights[i][row] = values[i];
        }
        for (int i = 0; i < size; ++i) {
            span.importance[i] = rows_.importance == nullptr ? 1.0f : rows_.importance[col + i];
        }
        find_reach(span);
    }

    // Rounded up, so that the largest block is within reach.
    template <Format f>
    [[gnu::always_inline]] void choose_bases(Floats& bases) {
        using Found = Search<lanes, f>;
        Floats largest = {};
        for (std::int64_t col = 0; col < rows_.cols; col += Found::kSize) {
            Span<lanes, Found::kSize> span;
            load_span(col, span);
            Floats spanning;
            Found::spanning_scale(span, spanning);
            larger_of(largest, spanning, largest);
        }
        for (int row = 0; row < lanes; ++row) {
            const std::uint16_t stored =
                bf16_of_float(largest[row] / Found::kGrid.largest_scale * (1 + 1.0f / 256));
            std::memcpy(group_ + 2 * (first_ + row), &stored, sizeof stored);
            bases[row] = float_of_bf16(stored);
        }
    }

    template <Format f>
    [[gnu::always_inline]] void store_scales(const Search<lanes, f>& found, std::uint8_t* place) {
        for (int row = 0; row < lanes; ++row) {
            const auto scale = found.scale_code()[row], zero = found.zero_code()[row];
            std::uint8_t* own = place + first_ + row;
            if constexpr (f == Format::kQ4) {
                own[0] = static_cast<std::uint8_t>(scale);
                own[kRowGroup] = static_cast<std::uint8_t>(zero);
            } else {
                own[0] = static_cast<std::uint8_t>(f == Format::kQ6 ? scale : scale << 3 | zero);
            }
        }
    }

    template <Format f>
    [[gnu::always_inline]] void store_codes(const Ints (&codes)[kBlock], std::int64_t col) {
        typename Lanes<lanes>::Words quads[kQuads];
        for (int g = 0; g < kQuads; ++g) {
            const Ints* c = codes + g * kQuad;
            const Ints quad = c[0] | c[1] << 8 | c[2] << 16 | c[3] << 24;
            std::memcpy(quads + g, &quad, sizeof quad);
        }
        place_quads<code_bits(f)>(quads, codes_of_block(f, group_, rows_.cols, col) + kQuad * first_);
    }

    template <Format f>
    [[gnu::always_inline]] void quantize_low_bit() {
        constexpr int kSize = Search<lanes, f>::kSize;
        Floats bases;
        choose_bases<f>(bases);
        for (std::int64_t col = 0; col < rows_.cols; col += kBlock) {
            std::uint8_t* scales = group_ + block_scale_offset(f, col / kBlock);
            Ints codes[kBlock];
            for (int i = 0; i < kBlock; i += kSize) {
                Span<lanes, kSize> span;
                load_span(col + i, span);
                const Search<lanes, f> search(span, bases);
                store_scales<f>(search, scales + i / kSize * kRowGroup);
                search.find_codes(codes + i);
            }
            store_codes<f>(codes, col);
        }
    }

    [[gnu::always_inline]] void quantize_q8() {
        for (std::int64_t col = 0; col < rows_.cols; col += kBlock) {
            Span<lanes, kBlock> span;
            load_span(col, span);
            Floats scales;
            larger_of(span.below, span.above, scales);
            std::uint8_t* place = group_ + block_scale_offset(Format::kQ8, col / kBlock);
            for (int row = 0; row < lanes; ++row) {
                const std::uint16_t stored = f16_of_float(scales[row] / 127);
                std::memcpy(place + 2 * (first_ + row), &stored, sizeof stored);
                scales[row] = float_of_f16(stored);
            }
            Scaled<lanes, kBlock> scaled;
            divide(span, scales, scaled);
            Ints codes[kBlock];
            const Floats zero = Floats{} + static_cast<float>(traits(Format::kQ8).zero);
            for (int i = 0; i < kBlock; ++i) nearest_code(scaled.weights[i], zero, 255, codes[i]);
            store_codes<Format::kQ8>(codes, col);
        }
    }

    const GroupRows& rows_;
    std::int64_t first_;
    std::uint8_t* group_;
};

template <int lanes>
[[gnu::always_inline]] inline void quantize_rows(const GroupRows& rows, Format format, std::uint8_t* group) {
    for (std::int64_t first = 0; first < kRowGroup; first += lanes) {
        RowsQuantiser<lanes>(rows, first, group).quantize(format);
    }
}

EDGEMOE_FOR_EACH_WIDTH(quantize_rows<kLanes>(rows, format, group),
                       quantize_group(const GroupRows& rows, Format format, std::uint8_t* group))

void copy_rows(const GroupRows& rows, Format f, std::uint8_t* group) {
    for (std::int64_t i = 0; i < rows.cols * kRowGroup; ++i) {
        const float value = rows.values[i % kRowGroup][i / kRowGroup];
        if (f == Format::kF32) {
            std::memcpy(group + 4 * i, &value, sizeof value);
        } else {
            const std::uint16_t half = f == Format::kF16 ? f16_of_float(value) : bf16_of_float(value);
            std::memcpy(group + 2 * i, &half, sizeof half);
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
            GroupRows group_rows = {{}, cols, importance};
            for (std::int64_t lane = 0; lane < kRowGroup; ++lane) {
                const std::int64_t row = g * kRowGroup + lane;
                group_rows.values[lane] = row < rows ? w + row * cols : zeros.data();
            }
            if (is_trellis(format)) {
                quantize_trellis_group(group_rows, format, group);
            } else if (is_low_bit(format)) {
                quantize_group(group_rows, format, group);
            } else {
                copy_rows(group_rows, format, group);
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
