#include "kernels/layout.h"

namespace edgemoe {
namespace {

// Where a few bits of a code lie: byte within the block's codes, and shift within the byte.
struct BitPlace {
    std::int64_t byte;
    int shift;
};

std::int64_t byte_in_chunk(std::int64_t row, std::int64_t col) { return row * kQuad + col % kQuad; }

BitPlace nibble_place(std::int64_t row, std::int64_t col) {
    const std::int64_t quad = col / kQuad;
    return {quad % 4 * kChunk + byte_in_chunk(row, col), quad < 4 ? 0 : 4};
}

BitPlace pair_place(std::int64_t row, std::int64_t col) {
    const std::int64_t quad = col / kQuad;
    return {quad / 4 * kChunk + byte_in_chunk(row, col), static_cast<int>(2 * (quad % 4))};
}

BitPlace bit_place(std::int64_t row, std::int64_t col) {
    return {byte_in_chunk(row, col), static_cast<int>(col / kQuad)};
}

std::uint8_t get_bits(const std::uint8_t* bytes, BitPlace place, int mask) {
    return static_cast<std::uint8_t>(bytes[place.byte] >> place.shift & mask);
}

void set_bits(std::uint8_t* bytes, BitPlace place, int mask, int value) {
    std::uint8_t& byte = bytes[place.byte];
    byte = static_cast<std::uint8_t>((byte & ~(mask << place.shift)) | (value & mask) << place.shift);
}

}  // namespace

std::uint8_t get_code(Format f, const std::uint8_t* codes, std::int64_t row, std::int64_t col) {
    const auto nibble = [&] { return get_bits(codes, nibble_place(row, col), 15); };
    const auto pair = [&](std::int64_t chunk) {
        return get_bits(codes + chunk * kChunk, pair_place(row, col), 3);
    };
    const auto bit = [&](std::int64_t chunk) {
        return get_bits(codes + chunk * kChunk, bit_place(row, col), 1);
    };
    switch (code_bits(f)) {
        case 2:
            return pair(0);
        case 3:
            return static_cast<std::uint8_t>(pair(0) | bit(2) << 2);
        case 4:
            return nibble();
        case 5:
            return static_cast<std::uint8_t>(nibble() | bit(4) << 4);
        case 6:
            return static_cast<std::uint8_t>(nibble() | pair(4) << 4);
        default:
            return codes[col / kQuad * kChunk + byte_in_chunk(row, col)];
    }
}

void set_code(Format f, std::uint8_t* codes, std::int64_t row, std::int64_t col, std::uint8_t code) {
    switch (code_bits(f)) {
        case 2:
            return set_bits(codes, pair_place(row, col), 3, code);
        case 3:
            set_bits(codes, pair_place(row, col), 3, code);
            return set_bits(codes + 2 * kChunk, bit_place(row, col), 1, code >> 2);
        case 4:
            return set_bits(codes, nibble_place(row, col), 15, code);
        case 5:
            set_bits(codes, nibble_place(row, col), 15, code);
            return set_bits(codes + 4 * kChunk, bit_place(row, col), 1, code >> 4);
        case 6:
            set_bits(codes, nibble_place(row, col), 15, code);
            return set_bits(codes + 4 * kChunk, pair_place(row, col), 3, code >> 4);
        default:
            codes[col / kQuad * kChunk + byte_in_chunk(row, col)] = code;
    }
}

}  // namespace edgemoe
