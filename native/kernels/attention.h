// Attention of a few queries over the same cached keys and values. Included textually by every instruction
// set after its vector primitives and elementwise.h.
//
// The positions are visited in ascending order whatever the caller's chunk of tokens, and each query has sums
// of its own, so that the bits of its result depend on its position alone, not on the queries beside it.

// Keys scored at a time by each query.
constexpr int kKeysAtOnce = 4;
// Vectors of one query's output that are kept in registers while all values are added.
constexpr int kVectorsAtOnce = 8;
// Keys that queries take turns with while they are in the processor's first cache.
constexpr std::int64_t kKeyBlockBytes = 16384;
// Entries of a value that queries take turns with: those of a text of some thousand tokens fit the second
// cache.
constexpr std::int64_t kColumnBlock = 64;

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

// Queries that stand together: their number, and the positions that any of them sees.
template <int m>
struct QueryTile {
    std::int64_t first_query;
    std::int64_t first, last;

    QueryTile(const AttendedQuery* queries, std::int64_t at)
        : first_query(at), first(queries[at].first), last(queries[at].last) {
        for (std::int64_t j = at + 1; j < at + m; ++j) {
            first = queries[j].first < first ? queries[j].first : first;
            last = queries[j].last > last ? queries[j].last : last;
        }
    }
};

// Calls run(tile) for all queries, as many at a time as registers hold the sums of.
template <typename Run>
inline void for_each_tile(const AttendedQuery* queries, std::int64_t count, const Run& run) {
    std::int64_t j = 0;
    for (; j + kQueriesAtOnce <= count; j += kQueriesAtOnce) run(QueryTile<kQueriesAtOnce>(queries, j));
    if (kQueriesAtOnce > 2 && j + 2 <= count) {
        run(QueryTile<2>(queries, j));
        j += 2;
    }
    if (j < count) run(QueryTile<1>(queries, j));
}

// scores[j][k] = query j . key k for m queries and keys [n][dim]; rows of scores lie `reach` apart.
template <int m, int n, typename T>
inline void dot_keys(const AttendedQuery* queries, const T* keys, std::int64_t dim, float* scores,
                     std::int64_t reach) {
    F sums[n * m];
    for (int i = 0; i < n * m; ++i) sums[i] = set1(0.0f);
    std::int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
        F key[n];
        for (int k = 0; k < n; ++k) key[k] = load_cached(keys + k * dim + i);
        for (int j = 0; j < m; ++j) {
            const F query = load_f32(queries[j].q + i);
            for (int k = 0; k < n; ++k) sums[k * m + j] = fma(query, key[k], sums[k * m + j]);
        }
    }
    if constexpr (n == kKeysAtOnce) {
        store_sums<m>(sums, scores, reach);
    } else {
        for (int j = 0; j < m; ++j) scores[j * reach] = sum_of(sums[j]);
    }
    for (; i < dim; ++i) {
        for (int j = 0; j < m; ++j) {
            for (int k = 0; k < n; ++k) {
                scores[j * reach + k] += queries[j].q[i] * cached_value(keys + k * dim + i);
            }
        }
    }
}

// The same for positions [begin, end) of keys. The first queries that come to them ask for those behind.
template <int m, typename T>
inline void score_keys(const AttendedQuery* queries, const T* keys, std::int64_t begin, std::int64_t end,
                       bool is_first, std::int64_t dim, float* scores, std::int64_t reach) {
    std::int64_t s = begin;
    for (; s + kKeysAtOnce <= end; s += kKeysAtOnce) {
        if (is_first) prefetch_after(keys + s * dim, kKeysAtOnce * dim);
        dot_keys<m, kKeysAtOnce>(queries, keys + s * dim, dim, scores + s, reach);
    }
    for (; s < end; ++s) dot_keys<m, 1>(queries, keys + s * dim, dim, scores + s, reach);
}

// What m queries have found: their weights [m] `reach` apart, and factors of the sums.
struct Weighed {
    const float* weights;
    std::int64_t reach;
    const float* factors;
};

// n vectors of each output from column `col` on: factor times the weighed sum of the values of [first, last).
template <int m, int n, typename T>
inline void add_values(const AttendedQuery* queries, const Weighed& found, const T* values, const Attended& a,
                       std::int64_t first, std::int64_t last, std::int64_t col) {
    F sums[m * n];
    for (int i = 0; i < m * n; ++i) sums[i] = set1(0.0f);
    for (std::int64_t s = first; s < last; ++s) {
        const T* const row = values + s * a.value_stride + col;
        prefetch_after(row, n * kLanes);
        F value[n];
        for (int v = 0; v < n; ++v) value[v] = load_cached(row + v * kLanes);
        for (int j = 0; j < m; ++j) {
            const F weight = set1(found.weights[j * found.reach + s]);
            for (int v = 0; v < n; ++v) sums[j * n + v] = fma(weight, value[v], sums[j * n + v]);
        }
    }
    for (int j = 0; j < m; ++j) {
        const F factor = set1(found.factors[j]);
        for (int v = 0; v < n; ++v) store(queries[j].out + col + v * kLanes, mul(sums[j * n + v], factor));
    }
}

// The same for columns [col, end), in pieces of n vectors or fewer.
template <int m, int n, typename T>
inline void add_columns(const AttendedQuery* queries, const Weighed& found, const T* values,
                        const Attended& a, std::int64_t first, std::int64_t last, std::int64_t col,
                        std::int64_t end) {
    for (; col + n * kLanes <= end; col += n * kLanes) {
        add_values<m, n>(queries, found, values, a, first, last, col);
    }
    if constexpr (n > 1) {
        add_columns<m, n / 2>(queries, found, values, a, first, last, col, end);
    } else {
        for (; col < end; ++col) {
            for (int j = 0; j < m; ++j) {
                float sum = 0;
                for (std::int64_t s = queries[j].first; s < queries[j].last; ++s) {
                    sum +=
                        found.weights[j * found.reach + s] * cached_value(values + s * a.value_stride + col);
                }
                queries[j].out[col] = sum * found.factors[j];
            }
        }
    }
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

// The scores of one query become its weights; returns what their sum is to be multiplied by.
inline float weigh(const AttendedQuery& query, float scale, float* scores) {
    float* const own = scores + query.first;
    const std::int64_t count = query.last - query.first;
    for (std::int64_t s = 0; s < count; ++s) own[s] *= scale;
    if (query.bias != nullptr) {
        for (std::int64_t s = 0; s < count; ++s) own[s] += query.bias[s];
    }
    return 1.0f / exponentiate(own, count, query.sink);
}

template <typename T>
void attend_cached(const AttendedQuery* queries, std::int64_t count, const T* keys, const T* values,
                   const Attended& a, float* scores) {
    const std::int64_t reach = a.num_positions, dim = a.key_dim;
    const auto smaller = [](std::int64_t x, std::int64_t y) { return x < y ? x : y; };
    const auto larger = [](std::int64_t x, std::int64_t y) { return x > y ? x : y; };
    const std::int64_t key_bytes = dim * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t block = larger(kKeyBlockBytes / key_bytes / kKeysAtOnce, 1) * kKeysAtOnce;
    for (std::int64_t begin = 0; begin < reach; begin += block) {
        for_each_tile(queries, count, [&]<int m>(const QueryTile<m>& tile) {
            const std::int64_t end = smaller(begin + block, tile.last);
            score_keys<m>(queries + tile.first_query, keys, larger(begin, tile.first), end,
                          tile.first_query == 0, dim, scores + tile.first_query * reach, reach);
        });
    }
    float factors[kMostQueries];
    for_each_tile(queries, count, [&]<int m>(const QueryTile<m>& tile) {
        for (std::int64_t j = tile.first_query; j < tile.first_query + m; ++j) {
            const AttendedQuery& query = queries[j];
            float* const own = scores + j * reach;
            factors[j] = weigh(query, a.scale, own);
            // What only the others of the tile see has no weight.
            for (std::int64_t s = tile.first; s < query.first; ++s) own[s] = 0;
            for (std::int64_t s = query.last; s < tile.last; ++s) own[s] = 0;
        }
    });
    const std::int64_t width = a.value_dim, columns = count > 1 ? kColumnBlock : width;
    for (std::int64_t col = 0; col < width; col += columns) {
        for_each_tile(queries, count, [&]<int m>(const QueryTile<m>& tile) {
            constexpr int kShare = kSumsAtOnce / m,
                          kVectors = kShare < kVectorsAtOnce ? kShare : kVectorsAtOnce;
            const std::int64_t j = tile.first_query;
            const Weighed found = {scores + j * reach, reach, factors + j};
            add_columns<m, kVectors>(queries + j, found, values, a, tile.first, tile.last, col,
                                     smaller(col + columns, width));
        });
    }
}

void attend(const AttendedQuery* queries, std::int64_t count, const void* keys, const void* values,
            const Attended& a, float* scores) {
    if (a.is_f16) {
        attend_cached(queries, count, static_cast<const std::uint16_t*>(keys),
                      static_cast<const std::uint16_t*>(values), a, scores);
    } else {
        attend_cached(queries, count, static_cast<const float*>(keys), static_cast<const float*>(values), a,
                      scores);
    }
}
