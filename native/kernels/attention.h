// Attention of one query head over cached keys and values. Included textually by every instruction set
// after its vector primitives and elementwise.h.
//
// The positions are visited in ascending order whatever the caller's chunk of tokens, so that the bits of the
// result depend on the position of the query alone.

// Keys scored at a time: as many sums as hide the latency of a multiply-add.
constexpr int kKeysAtOnce = 4;
// Vectors of the output that are kept in registers while all values are added.
constexpr int kVectorsAtOnce = 8;

template <typename T>
inline F load_cached(const T* p) {
    if constexpr (sizeof(T) == 2) return load_f16(p);
    if constexpr (sizeof(T) == 4) return load_f32(p);
}

template <typename T>
inline float cached_value(const T* p) {
    if constexpr (sizeof(T) == 2) return float_of_f16(*p);
    if constexpr (sizeof(T) == 4) return *p;
}

// How far keys and values are asked for ahead of their use: the hardware's own prefetch stops at every page
// of 4 KiB, which is a dozen positions away.
constexpr std::int64_t kPositionsAheadBytes = 3072;

// Asks for as many values as were just used.
template <typename T>
inline void prefetch_after(const T* used, std::int64_t count) {
    const auto* next = reinterpret_cast<const char*>(used) + kPositionsAheadBytes;
    const auto num_bytes = count * static_cast<std::int64_t>(sizeof(T));
    for (std::int64_t i = 0; i < num_bytes; i += kAlignment) __builtin_prefetch(next + i);
}

// scores[n] = q . keys[n], for keys [n][dim].
template <int n, typename T>
inline void dot_keys(const float* q, const T* keys, std::int64_t dim, float* scores) {
    F sums[n];
    for (int k = 0; k < n; ++k) sums[k] = set1(0.0f);
    std::int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
        const F query = load_f32(q + i);
        for (int k = 0; k < n; ++k) sums[k] = fma(query, load_cached(keys + k * dim + i), sums[k]);
    }
    for (int k = 0; k < n; ++k) {
        scores[k] = sum_of(sums[k]);
        for (std::int64_t j = i; j < dim; ++j) scores[k] += q[j] * cached_value(keys + k * dim + j);
    }
}

// out = factor times the weighed sum of n vectors of each of the values [num_positions][stride].
template <int n, typename T>
inline void add_values(const float* weights, const T* values, std::int64_t num_positions, std::int64_t stride,
                       float factor, float* out) {
    F sums[n];
    for (int v = 0; v < n; ++v) sums[v] = set1(0.0f);
    for (std::int64_t s = 0; s < num_positions; ++s) {
        const F weight = set1(weights[s]);
        prefetch_after(values + s * stride, n * kLanes);
        for (int v = 0; v < n; ++v) {
            sums[v] = fma(weight, load_cached(values + s * stride + v * kLanes), sums[v]);
        }
    }
    for (int v = 0; v < n; ++v) store(out + v * kLanes, mul(sums[v], set1(factor)));
}

// Turns scores into the exponentials of what they are below the largest; returns their sum. A sink (or
// nullptr) is one more score, which takes its part of the sum and has no value.
inline float exponentiate(float* scores, std::int64_t num_positions, const float* sink) {
    constexpr std::int64_t kPartials = 16;  // enough for the compiler to fill a vector
    float largest[kPartials], sums[kPartials] = {};
    for (std::int64_t j = 0; j < kPartials; ++j) largest[j] = scores[0];
    std::int64_t s = 0;
    for (; s + kPartials <= num_positions; s += kPartials) {
        for (std::int64_t j = 0; j < kPartials; ++j) {
            largest[j] = scores[s + j] > largest[j] ? scores[s + j] : largest[j];
        }
    }
    for (; s < num_positions; ++s) largest[0] = scores[s] > largest[0] ? scores[s] : largest[0];
    for (const float one : largest) largest[0] = one > largest[0] ? one : largest[0];
    const float top = sink != nullptr && *sink > largest[0] ? *sink : largest[0];
    for (s = 0; s < num_positions; ++s) scores[s] = exponential(scores[s] - top);
    for (s = 0; s + kPartials <= num_positions; s += kPartials) {
        for (std::int64_t j = 0; j < kPartials; ++j) sums[j] += scores[s + j];
    }
    float total = 0;
    for (; s < num_positions; ++s) total += scores[s];
    for (const float sum : sums) total += sum;
    return sink != nullptr ? total + exponential(*sink - top) : total;
}

template <typename T>
void attend_cached(const float* q, const T* keys, const T* values, const Attended& a, float* scores,
                   float* out) {
    const std::int64_t num_positions = a.num_positions, dim = a.key_dim;
    std::int64_t s = 0;
    for (; s + kKeysAtOnce <= num_positions; s += kKeysAtOnce) {
        prefetch_after(keys + s * dim, kKeysAtOnce * dim);
        dot_keys<kKeysAtOnce>(q, keys + s * dim, dim, scores + s);
    }
    for (; s < num_positions; ++s) dot_keys<1>(q, keys + s * dim, dim, scores + s);
    for (s = 0; s < num_positions; ++s) scores[s] *= a.scale;
    if (a.bias != nullptr) {
        for (s = 0; s < num_positions; ++s) scores[s] += a.bias[s];
    }
    const float factor = 1.0f / exponentiate(scores, num_positions, a.sink);
    const std::int64_t width = a.value_dim, stride = a.value_stride;
    std::int64_t i = 0;
    for (; i + kVectorsAtOnce * kLanes <= width; i += kVectorsAtOnce * kLanes) {
        add_values<kVectorsAtOnce>(scores, values + i, num_positions, stride, factor, out + i);
    }
    constexpr int kHalf = kVectorsAtOnce / 2;  // heads of 64 in AVX-512; still enough to hide latency
    if (i + kHalf * kLanes <= width) {
        add_values<kHalf>(scores, values + i, num_positions, stride, factor, out + i);
        i += kHalf * kLanes;
    }
    for (; i + kLanes <= width; i += kLanes) {
        add_values<1>(scores, values + i, num_positions, stride, factor, out + i);
    }
    for (; i < width; ++i) {
        float sum = 0;
        for (s = 0; s < num_positions; ++s) sum += scores[s] * cached_value(values + s * stride + i);
        out[i] = sum * factor;
    }
}

void attend(const float* q, const void* keys, const void* values, const Attended& a, float* scores,
            float* out) {
    if (a.is_f16) {
        attend_cached(q, static_cast<const std::uint16_t*>(keys), static_cast<const std::uint16_t*>(values),
                      a, scores, out);
    } else {
        attend_cached(q, static_cast<const float*>(keys), static_cast<const float*>(values), a, scores, out);
    }
}
