// A tile of tokens by unpacked rows, L of them after the other. Included textually after unpacked_block.h and
// add_block<f>(w, vector, x, acc), which adds the products of a block to the sums of that vector of rows.

template <Format f>
void multiply_tile(const UnpackedBlock<f>* w, const TileBlock* x, const BlockRange& range,
                   const SumPlace& place) {
    for (int v = 0; v < kVectors && v * kLanes < place.num_rows; ++v) {
        const std::int64_t num_rows = place.num_rows - v * kLanes;
        float* const out = place.out + v * kLanes;
        F acc[kTileTokens];
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) {
            const bool has_earlier = range.begin > 0 && t < place.num_tokens;
            acc[t] = has_earlier ? load_rows(out + t * place.stride, num_rows) : set1(0.0f);
        }
        for (std::int64_t i = 0; i < range.count; ++i) add_block<f>(w[i], v, x[i], acc);
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) {
            if (t >= place.num_tokens) break;
            if (range.base != nullptr) acc[t] = mul(acc[t], range.base[v]);
            store_rows(out + t * place.stride, acc[t], num_rows);
        }
    }
}
