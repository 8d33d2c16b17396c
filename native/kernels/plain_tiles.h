// What tile_instructions.h does, by plain code that means the same (Intel's manual of instructions): so the
// kernels of AMX can be tested on processors without it, and a sanitizer sees what tiles read and write.
// Included textually by amx.cpp in its place.

// Bytes beyond the shape of a tile are zero, as is everything when tiles are configured.
struct PlainTiles {
    std::int8_t bytes[kNumTiles][kMostTileRows][kMostTileBytes] = {};
    bool are_configured = false;
};
thread_local PlainTiles plain_tiles;

class Tiles {
  public:
    Tiles() { plain_tiles = {.bytes = {}, .are_configured = true}; }
    ~Tiles() { plain_tiles = {}; }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// A thread that has no tiles ends here, as it would by the instructions.
template <int tile>
inline auto& plain_tile() {
    if (!plain_tiles.are_configured) __builtin_trap();
    return plain_tiles.bytes[tile];
}

template <int tile>
inline void load_tile(const void* from, std::int64_t stride) {
    auto& rows = plain_tile<tile>();
    for (int row = 0; row < kTileShapes.rows[tile]; ++row) {
        const auto* bytes = static_cast<const std::int8_t*>(from) + row * stride;
        __builtin_memcpy(rows[row], bytes, kTileShapes.row_bytes[tile]);
    }
}
template <int tile>
inline void store_tile(TileSums& to) {
    const auto& rows = plain_tile<tile>();
    for (int row = 0; row < kTileShapes.rows[tile]; ++row) {
        __builtin_memcpy(to[row], rows[row], kTileShapes.row_bytes[tile]);
    }
}
// The sum of row m and lane n is that of the quads k of row m of codes by lane n of row k of values.
template <int sums, int codes, int values>
inline void multiply_tiles() {
    const auto& x = plain_tile<codes>();
    const auto& w = plain_tile<values>();
    TileSums products = {};
    for (int m = 0; m < kTileShapes.rows[sums]; ++m) {
        for (int k = 0; k < kTileShapes.rows[values]; ++k) {
            for (int n = 0; n < kTileShapes.row_bytes[sums] / 4; ++n) {
                for (int j = 0; j < kQuad; ++j) {
                    products[m][n] += x[m][k * kQuad + j] * w[k][n * kQuad + j];
                }
            }
        }
    }
    __builtin_memcpy(plain_tile<sums>(), products, sizeof products);
}
