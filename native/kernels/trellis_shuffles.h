// Values of t2 by AVX-512 with VBMI, whose tables of 64 bytes take a number's bits wherever they are in the
// low six: two quads share a vector of numbers, and neither is shifted or masked by itself. Included
// textually after block_values.h by the files of instruction sets that have it.

// The bits of a chunk that are k places further in their cycles.
template <int k>
inline I places_after(I path) {
    static constexpr Bytes kPlaces = [] {
        Bytes places = {};
        for (int i = 0; i < kChunk; ++i) {
            const int place = i / 4 + i % 4 * 16 + k;
            places.at[i] = static_cast<std::uint8_t>(place % 16 * 4 + place / 16 % 4);
        }
        return places;
    }();
    return _mm512_permutexvar_epi8(kPlaces, path);
}

// For six bits, the value of the number whose bits are in these places.
constexpr Bytes values_by(int low, int high, int own) {
    Bytes values = {};
    for (int i = 0; i < kChunk; ++i) {
        values.at[i] = kTrellis8Table[(i >> low & 1) | (i >> high & 1) << 1 | (i >> own & 1) << 2];
    }
    return values;
}

// Bits 0 and 1 of the first, 2 and 3 of the second, and 4 and 5 of the third.
inline I three_pairs(I first, I second, I third) {
    return select8(select8(third, second, 0x0c), first, 0x03);
}

// Path bits are in pairs of quads 0 4, 2 6, 1 5 and 3 7, own bits in pairs of 6 2, 0 4, 7 3 and 1 5.
template <>
struct BlockValues<Format::kT2, true> {
    BlockValues(const std::uint8_t* codes, const ScalePlace&) {
        const I path = load_codes(codes), own = load_codes(codes + kChunk);
        const I high =
            _mm512_ternarylogic_epi64(places_after<1>(path), places_after<6>(path), path, 0x96);  // all xored
        const I low = xor8(places_after<2>(path), places_after<4>(path)), last_high = shift<-4>(high);
        numbers[0] = three_pairs(low, own, shift<4>(high));
        numbers[1] = three_pairs(last_high, shift<-4>(own), low);
        numbers[2] = three_pairs(own, high, shift<2>(low));
        numbers[3] = three_pairs(shift<-6>(low), last_high, own);
    }

    template <int g>
    I quad() const {
        constexpr int kLow[4] = {0, 4, 4, 0}, kHigh[4] = {4, 0, 2, 2}, kOwn[4] = {2, 2, 0, 4};
        constexpr int i = g % 4, kSecond = g / 4, kSecondOwn = i < 2 ? kSecond : 1 - kSecond;
        static constexpr Bytes kValues =
            values_by(kLow[i] + kSecond, kHigh[i] + kSecond, kOwn[i] + kSecondOwn);
        return _mm512_permutexvar_epi8(numbers[i], kValues);
    }

    I numbers[4];  // of quads i and i + 4
};
