// Numbers of trellis codes in the tables of their values, by the definitions in layout.h. Included textually
// by every vector instruction set after its primitives, which loops.h lists, and before loops.h.

// Those of one block and L rows, whose codes begin at `codes`. The subsets of all its weights are found
// together: they are a few exclusive ors of the chunk of path bits with itself, moved by some rows.
template <Format f>
class TrellisNumbers {
  public:
    TrellisNumbers(const std::uint8_t* codes, std::int64_t lane) {
        const PathRows path(codes - lane * kQuad, lane);
        const I high =
            xor8(path.template after<0>(), xor8(path.template after<1>(), path.template after<6>()));
        const I low = xor8(path.template after<2>(), path.template after<4>());
        // Both bits side by side: of quads 0 2 1 3 and of 4 6 5 7, from the low bits on.
        const I first = select8(low, shift<1>(high), 0xaa);
        const I last = select8(shift<-1>(low), high, 0xaa);
        if constexpr (code_bits(f) == 2) {
            // The highest bit of each number is any: the table has its values twice.
            const I own = load_codes(codes + kChunk);
            pairs_[0] = select8(first, own, 0x44);
            pairs_[1] = select8(shift<-2>(first), shift<1>(own), 0x44);
            pairs_[2] = select8(last, shift<-1>(own), 0x44);
            pairs_[3] = select8(shift<-2>(last), shift<2>(own), 0x44);
        } else {
            const I own_first = load_codes(codes + kChunk), own_last = load_codes(codes + 2 * kChunk);
            pairs_[0] = select8(first, shift<2>(own_first), 0xcc);
            pairs_[1] = select8(shift<-2>(first), own_first, 0xcc);
            pairs_[2] = select8(last, shift<2>(own_last), 0xcc);
            pairs_[3] = select8(shift<-2>(last), own_last, 0xcc);
        }
    }

    // In the low four bits.
    template <int g>
    I quad() const {
        return shift<(g % 2 == 0 ? 0 : -4)>(pairs_[g / 2]);
    }

  private:
    I pairs_[4];  // quads 2 i in the low and 2 i + 1 in the high nibbles
};
