// A tile of tokens by unpacked rows. Included textually after unpacked_block.h and
// add_block<f>(w, block, vector, x, acc), which adds the products of a block of a tile to the sums of the V
// vectors of rows from that one on.

template <Format f, int V>
void multiply_vectors(const UnpackedGroups<f>& w, int vector, const TileBlock* x, const BlockRange& range,
                      const SumPlace& place) {
    F acc[V][kTileTokens];
    for (int v = 0; v < V; ++v) {
        const std::int64_t row = (vector + v) * kLanes;
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) {
            const bool has_earlier = range.begin > 0 && t < place.num_tokens;
            const float* out = place.out + t * place.stride + row;
            acc[v][t] = has_earlier ? load_rows(out, place.num_rows - row) : set1(0.0f);
        }
    }
    for (std::int64_t i = 0; i < range.count; ++i) add_block<f>(w, i, vector, x[i], acc);
    for (int v = 0; v < V; ++v) {
        const std::int64_t row = (vector + v) * kLanes;
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) {
            if (t >= place.num_tokens) break;
            if (range.base != nullptr) acc[v][t] = mul(acc[v][t], range.base[vector + v]);
            store_rows(place.out + t * place.stride + row, acc[v][t], place.num_rows - row);
        }
    }
}

template <Format f>
void multiply_tile(const UnpackedGroups<f>& w, const TileBlock* x, const BlockRange& range,
                   const SumPlace& place) {
    const auto num_vectors = static_cast<int>((place.num_rows + kLanes - 1) / kLanes);
    int vector = 0;
    for (; vector + kVectorsTogether <= num_vectors; vector += kVectorsTogether) {
        multiply_vectors<f, kVectorsTogether>(w, vector, x, range, place);
    }
    for (; vector < num_vectors; ++vector) multiply_vectors<f, 1>(w, vector, x, range, place);
}
