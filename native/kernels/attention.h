// Attention of one query head over cached keys and values. Included textually by every instruction set
// after its vector primitives and elementwise.h.

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

template <typename T>
inline float dot_key(const float* q, const T* key, std::int64_t dim) {
    F acc = set1(0.0f);
    std::int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) acc = fma(load_f32(q + i), load_cached(key + i), acc);
    float lanes[kLanes];
    store(lanes, acc);
    float sum = 0;
    for (float lane : lanes) sum += lane;
    for (; i < dim; ++i) sum += q[i] * cached_value(key + i);
    return sum;
}

template <typename T>
inline void add_value(float weight, const T* value, std::int64_t dim, float* out) {
    const F weights = set1(weight);
    std::int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes)
        store(out + i, fma(weights, load_cached(value + i), load_f32(out + i)));
    for (; i < dim; ++i) out[i] += weight * cached_value(value + i);
}

// The positions are visited in ascending order whatever the caller's chunk of tokens, so that the bits of
// the result depend on the position of the query alone.
template <typename T>
void attend_cached(const float* q, const T* keys, const T* values, std::int64_t num_positions,
                   std::int64_t dim, float scale, const float* bias, float* scores, float* out) {
    float largest = -__builtin_inff();
    for (std::int64_t s = 0; s < num_positions; ++s) {
        scores[s] = scale * dot_key(q, keys + s * dim, dim);
        if (bias != nullptr) scores[s] += bias[s];
        largest = scores[s] > largest ? scores[s] : largest;
    }
    float total = 0;
    for (std::int64_t s = 0; s < num_positions; ++s) scores[s] = exponential(scores[s] - largest);
    for (std::int64_t s = 0; s < num_positions; ++s) total += scores[s];
    for (std::int64_t i = 0; i < dim; ++i) out[i] = 0;
    for (std::int64_t s = 0; s < num_positions; ++s) add_value(scores[s] / total, values + s * dim, dim, out);
}

void attend(const float* q, const void* keys, const void* values, bool is_f16, std::int64_t num_positions,
            std::int64_t dim, float scale, const float* bias, float* scores, float* out) {
    if (is_f16) {
        attend_cached(q, static_cast<const std::uint16_t*>(keys), static_cast<const std::uint16_t*>(values),
                      num_positions, dim, scale, bias, scores, out);
    } else {
        attend_cached(q, static_cast<const float*>(keys), static_cast<const float*>(values), num_positions,
                      dim, scale, bias, scores, out);
    }
}
