// AMX's instructions on tiles, of the shapes kTileShapes. Included textually by amx.cpp.
//
// Not the compiler's own functions: these take no numbers from templates, and GCC's do not tell it that a
// tile is loaded from memory.

// While one exists, this thread has tiles.
class Tiles {
  public:
    Tiles() { asm volatile("ldtilecfg %0" ::"m"(kTileShapes)); }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

template <int tile>
inline void load_tile(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride) : "memory");
}
template <int tile>
inline void store_tile(TileSums& to) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(to), "r"(sizeof to[0]) : "memory");
}
// Tile `sums` becomes the products of two tiles of signed bytes.
template <int sums, int codes, int values>
inline void multiply_tiles() {
    asm volatile("tilezero %%tmm%c0\n\ttdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(codes),
                 "i"(values));
}
