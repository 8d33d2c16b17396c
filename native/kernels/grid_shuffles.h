// Points of grids without a load for each, by AVX-512 with VBMI, which shuffles bytes among whole vectors and
// takes bit fields of any place. Included textually after avx512.h and block_scales.h, inside the anonymous
// namespaces of instruction sets that have it, in place of grid_quads.h.

// For _mm512_multishift_epi64_epi8: byte `col` of every row gets 8 bits of the row's 32 from bit first + step
// * col on. What lies beyond those is of no use.
constexpr Bytes bits_from(int first, int step) {
    Bytes starts = {};
    for (int i = 0; i < 64; ++i) {
        starts.at[i] = static_cast<std::uint8_t>((i / 4 % 2 * 32 + first + step * (i % 4)) & 63);
    }
    return starts;
}
template <int first, int step>
inline I take_bits(I rows) {
    static constexpr Bytes kStarts = bits_from(first, step);
    return _mm512_multishift_epi64_epi8(kStarts, rows);
}
// The low `bits` bits of a, all others of b.
template <int bits>
inline I join(I a, I b) {
    return _mm512_ternarylogic_epi64(_mm512_set1_epi8((1 << bits) - 1), a, b, 0xca);
}

// table[number] for tables of 128 << bits entries: the lower 8 bits of numbers are bytes, higher ones masks.
template <int bits>
inline I look_up_bytes(const std::uint8_t* table, I low, const __mmask64* masks) {
    if constexpr (bits == 0) {
        return _mm512_permutex2var_epi8(_mm512_load_si512(table), low, _mm512_load_si512(table + 64));
    } else {
        const I first = look_up_bytes<bits - 1>(table, low, masks);
        const I second = look_up_bytes<bits - 1>(table + (64 << bits), low, masks);
        return _mm512_mask_blend_epi8(masks[bits - 1], first, second);
    }
}

// The values of one block of 16 rows: levels and signs of all columns, of which a quad takes its own.
template <Format f>
class GridBlock {
  public:
    GridBlock(const std::uint8_t* codes, const ScalePlace& at) {
        I high = _mm512_setzero_si512();
        const std::uint8_t* place = at.block + own_scale_bytes(f);
        if constexpr (high_bits_of_row(f) == 4) high = load_nibbles(place, 0);
        if constexpr (high_bits_of_row(f) >= 8) high = load_bytes(place);
        if constexpr (high_bits_of_row(f) == 16) high = or8(high, shift32<8>(load_bytes(place + kRowGroup)));
        find_levels<0>(codes, high);
        if constexpr (kChunks == 2) find_levels<1>(codes + kChunk, high);
        changes_ = kGrid.has_signs ? load_codes(codes + kChunks * kChunk) : high;
    }

    template <int g>
    QuadPair quads() const {
        return {quad<g>(), quad<g + 1>()};
    }

  private:
    static constexpr GridTraits kGrid = grid_traits(f);
    static constexpr int kChunks = static_cast<int>(block_points(f)) / 4;

    template <int chunk>
    void find_levels(const std::uint8_t* codes, I high) {
        constexpr int kBits = kGrid.has_signs ? kGrid.high_bits : kGrid.high_bits - 1;
        const I low = load_codes(codes);
        const I above = take_bits<4 * chunk * kGrid.high_bits, kGrid.high_bits>(high);
        __mmask64 masks[1 + kBits] = {_mm512_movepi8_mask(low)};
        for (int i = 0; i < kBits; ++i) {
            masks[1 + i] = _mm512_test_epi8_mask(above, _mm512_set1_epi8(static_cast<char>(1 << i)));
        }
        const auto& fields = grid_tables<f>().fields;
        fields_[0][chunk] = look_up_bytes<1 + kBits>(fields[0], low, masks);
        fields_[1][chunk] = look_up_bytes<1 + kBits>(fields[1], low, masks);
    }

    template <int g>
    I quad() const {
        const I values = _mm512_load_si512(grid_tables<f>().values);
        I change;  // its lowest bit is above those of the level
        if constexpr (kGrid.has_signs) {
            change = take_bits<g - kLevelBits, 8>(changes_);
        } else {
            change = take_bits<kGrid.high_bits*(g / 2) + kGrid.high_bits - 1 - kLevelBits, 0>(changes_);
        }
        if constexpr (kGrid.cols == 8) {
            const I level = take_bits<g / 2 * 8, 2>(fields_[g % 2][0]);
            return _mm512_permutexvar_epi8(join<2>(level, change), values);
        } else {
            const I level = take_bits<g % 4 * 8, 2>(fields_[0][g / 4]);
            const I third = take_bits<g % 4 * 8 - 2, 1>(fields_[1][g / 4]);
            return _mm512_permutexvar_epi8(join<3>(join<2>(level, third), change), values);
        }
    }

    static constexpr int kLevelBits = kGrid.cols == 8 ? 2 : 3;

    I fields_[2][kChunks];
    I changes_;  // signs, or the bits that raise points
};
