// Primitives of NEON, as loops.h and grid_quads.h list them but for Sums: 4 rows a vector. Included textually
// by the files of instruction sets that have them, inside their anonymous namespaces.

using F = float32x4_t;
using I = int32x4_t;
constexpr int kLanes = 4;
constexpr int kMaxTokens = 8;
constexpr int kQueriesAtOnce = 4;  // of attention, and how many of its sums are in registers
constexpr int kSumsAtOnce = 16;
constexpr int kVectorsTogether = 1;
constexpr int kDot8Zero = 0;
using HalvedSums = void;

inline I of_bytes(uint8x16_t v) { return vreinterpretq_s32_u8(v); }
inline uint8x16_t bytes_of(I v) { return vreinterpretq_u8_s32(v); }

struct QuadPair {
    I first, second;
};

inline I set1_i(std::int32_t v) { return vdupq_n_s32(v); }
inline I load_codes(const std::uint8_t* p) { return of_bytes(vld1q_u8(p)); }
inline void store_codes(std::uint8_t* p, I v) { vst1q_u8(p, bytes_of(v)); }
inline I and8(I v, int mask) {
    return of_bytes(vandq_u8(bytes_of(v), vdupq_n_u8(static_cast<std::uint8_t>(mask))));
}
inline I or8(I a, I b) { return vorrq_s32(a, b); }
inline I xor8(I a, I b) { return veorq_s32(a, b); }
inline I select8(I a, I b, int mask) {
    return of_bytes(vbslq_u8(vdupq_n_u8(static_cast<std::uint8_t>(mask)), bytes_of(b), bytes_of(a)));
}
template <int n>
inline I shift(I v) {
    return vreinterpretq_s32_u16(vshlq_u16(vreinterpretq_u16_s32(v), vdupq_n_s16(n)));
}
inline I load_bytes(const std::uint8_t* p) {
    std::uint32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    const uint16x8_t halves = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(halves)));
}
inline F to_float(I v) { return vcvtq_f32_s32(v); }
inline F as_float(I v) { return vreinterpretq_f32_s32(v); }
// L 4-bit numbers of rows [lane, lane + L) from 8 bytes.
inline I load_nibbles(const std::uint8_t* p, std::int64_t lane) {
    const I bytes = vshlq_s32(load_bytes(p + lane % 8), vdupq_n_s32(lane < 8 ? 0 : -4));
    return vandq_s32(bytes, vdupq_n_s32(15));
}
struct PathRows {
    I rows[3];

    PathRows(const std::uint8_t* chunk, std::int64_t lane) {
        for (int i = 0; i < 3; ++i) {
            const std::int64_t row = lane + i * kLanes;
            const I found = load_codes(chunk + row % kRowGroup * kQuad);
            // After the last row of a column comes the first one of the next.
            const uint32x4_t words = vreinterpretq_u32_s32(found);
            rows[i] = row < kRowGroup ? found
                                      : vreinterpretq_s32_u32(vsliq_n_u32(vshrq_n_u32(words, 8), words, 24));
        }
    }
    template <int k>
    I after() const {
        if constexpr (k % 4 == 0) return rows[k / 4];
        return vextq_s32(rows[k / 4], rows[k / 4 + 1], k % 4);
    }
};
inline I look_up(const std::uint8_t* table, I codes) {
    return of_bytes(vqtbl1q_u8(vld1q_u8(table), bytes_of(and8(codes, 15))));
}
inline QuadPair look_up_points(const std::uint64_t* points, I numbers) {
    std::uint32_t n[4];
    vst1q_u32(n, vreinterpretq_u32_s32(numbers));
    const auto two = [&](int i) {
        return vreinterpretq_s32_u64(vcombine_u64(vld1_u64(points + n[i]), vld1_u64(points + n[i + 1])));
    };
    const I first = two(0), last = two(2);
    return {vuzp1q_s32(first, last), vuzp2q_s32(first, last)};
}
inline I look_up_points(const std::uint32_t* points, I numbers) {
    std::uint32_t n[4];
    vst1q_u32(n, vreinterpretq_u32_s32(numbers));
    uint32x4_t rows = vld1q_dup_u32(points + n[0]);
    rows = vld1q_lane_u32(points + n[1], rows, 1);
    rows = vld1q_lane_u32(points + n[2], rows, 2);
    return vreinterpretq_s32_u32(vld1q_lane_u32(points + n[3], rows, 3));
}
inline I negate_where(I v, I signs, int twice) {
    const uint8x16_t others = vsubq_u8(vdupq_n_u8(static_cast<std::uint8_t>(twice)), bytes_of(v));
    return of_bytes(vbslq_u8(vcltzq_s8(vreinterpretq_s8_s32(signs)), others, bytes_of(v)));
}
template <int n>
inline I shift32(I v) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), vdupq_n_s32(n)));
}
inline I max32(I v, int c) { return vmaxq_s32(v, vdupq_n_s32(c)); }
inline I add32(I v, int c) { return vaddq_s32(v, vdupq_n_s32(c)); }
inline I and32(I v, int c) { return vandq_s32(v, vdupq_n_s32(c)); }
inline F load_f32(const float* p) { return vld1q_f32(p); }
inline F load_f16(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline F load_bf16(const std::uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
inline F set1(float v) { return vdupq_n_f32(v); }
inline F mul(F a, F b) { return vmulq_f32(a, b); }
inline F add(F a, F b) { return vaddq_f32(a, b); }
inline F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
inline F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
inline void store(float* p, F v) { vst1q_f32(p, v); }
inline void store_f16(std::uint16_t* p, F v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
inline float sum_of(F v) { return vaddvq_f32(v); }
// The sums of lanes of queries' products with four keys, sums [4][m], to rows of scores.
template <int m>
inline void store_sums(const F* sums, float* scores, std::int64_t reach) {
    for (int j = 0; j < m; ++j) {
        const F a = vpaddq_f32(sums[j], sums[m + j]), b = vpaddq_f32(sums[2 * m + j], sums[3 * m + j]);
        vst1q_f32(scores + j * reach, vpaddq_f32(a, b));
    }
}
