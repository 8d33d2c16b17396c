// Products of a block of V vectors of rows and T tokens. Included textually by loops.h.

// In this order a quad of a token, once it is in a register, meets all rows.
template <int g, int V, int T, typename SumsOfToken>
inline void add_quad(const I (&w)[V], const TokenBlock<T>& x, SumsOfToken (&sums)[V][T]) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[v][t].template add<g>(w[v], x.codes[t] + g * kQuad);
    }
}

template <Format f, int g_begin, int g_end, int V, int T, typename Quads, typename SumsOfToken>
inline void add_quads(const Quads (&blocks)[V], const TokenBlock<T>& x, SumsOfToken (&sums)[V][T]) {
    if constexpr (g_begin < g_end) {
        I first[V], second[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            if constexpr (has_grid(f)) {
                const QuadPair pair = blocks[v].template quads<g_begin>();
                first[v] = pair.first;
                second[v] = pair.second;
            } else {
                first[v] = blocks[v].template quad<g_begin>();
                second[v] = blocks[v].template quad<g_begin + 1>();
            }
        }
        add_quad<g_begin>(first, x, sums);
        add_quad<g_begin + 1>(second, x, sums);
        add_quads<f, g_begin + 2, g_end>(blocks, x, sums);
    }
}

// The sums of the products of one half of the columns, or of all of them, from `start(t)` on.
template <Format f, int g_begin, int g_end, int V, int T, typename Quads, typename Start>
inline void dot_quads(const Quads (&blocks)[V], const TokenBlock<T>& x, const Start& start, I (&sum)[V][T]) {
    Sums<value_bits(f), T == 1> sums[V][T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[v][t].sum = set1_i(start(t));
    }
    add_quads<f, g_begin, g_end>(blocks, x, sums);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sum[v][t] = sums[v][t].total();
    }
}

// Adds the products of a block, whose values are the quads of `blocks`, for V vectors of rows.
template <Format f, int V, int T, typename Quads>
inline void accumulate(const Quads (&blocks)[V], const HalfScales (&by)[V], const TokenBlock<T>& x,
                       F (&acc)[V][T]) {
    I sum[V][T];
    F product[V][T];
    dot_quads<f, 0, 4>(blocks, x, [&](int t) { return start_of_half<f>(x, 0, t); }, sum);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) product[v][t] = mul(by[v].scale[0], to_float(sum[v][t]));
    }
    dot_quads<f, 4, 8>(blocks, x, [&](int t) { return start_of_half<f>(x, 1, t); }, sum);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const F dots = fma(by[v].scale[1], to_float(sum[v][t]), product[v][t]);
            acc[v][t] = add_halves<f>(dots, by[v], x, t, acc[v][t]);
        }
    }
}

// Zeros that are the same everywhere are in what the integer sums begin at.
template <Format f, int V, int T, typename Quads>
inline void accumulate(const Quads (&blocks)[V], const WholeScale (&by)[V], const TokenBlock<T>& x,
                       F (&acc)[V][T]) {
    I sum[V][T];
    dot_quads<f, 0, 8>(blocks, x, [&](int t) { return start_of_block<f>(x, t); }, sum);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) acc[v][t] = add_whole<f>(to_float(sum[v][t]), by[v], x, t, acc[v][t]);
    }
}
