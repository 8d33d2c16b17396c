// Many tokens by rows that are unpacked once for all of them. Included textually by the files of instruction
// sets that multiply several tokens in one instruction, inside their anonymous namespaces and after
// block_values.h. Fewer tokens, those that are left over, and matrices of floats go another set's way.
//
// Integers sum a block exactly in any order; from there on every token has the float operations of loops.h in
// their order (block_values.h). So it has the same bits in a tile, left over, and alone.
//
// Expected beyond the primitives that loops.h lists:
// clang-format off
//   kTileTokens, kUnfilledFrom  tokens in a tile, and how many pay for one that is not full
//   kTokensTogether             see quantize_token()
//   rest_kernels()              the other set
//   Tiles, store_quads()        see unpacked_block.h
// clang-format on

using TileBlock = TokenBlock<kTileTokens>;

// Tokens that are in tiles.
std::int64_t num_in_tiles(const Activations& x) {
    if (x.are_apart) return 0;
    const std::int64_t left = x.num_tokens % kTileTokens;
    return left >= kUnfilledFrom ? x.num_tokens : x.num_tokens - left;
}

// Those that are not.
Activations rest_of(const Activations& x, std::int64_t num_tiled) {
    const std::uint8_t* blocks = x.blocks;
    if (blocks != nullptr) blocks += num_tiled * (x.cols / kBlock) * kTokenBlockBytes;
    return {x.values + num_tiled * x.cols, blocks, x.num_tokens - num_tiled, x.cols, x.are_apart};
}

void quantize_rows(const Activations& x, std::int64_t begin, std::int64_t end, std::uint8_t* blocks) {
    const std::int64_t num_tiled = num_in_tiles(x), token_bytes = x.cols / kBlock * kTokenBlockBytes;
    for (std::int64_t t = begin; t < smaller(end, num_tiled); ++t) {
        const std::int64_t slot = t % kTileTokens;
        auto* const tile = reinterpret_cast<TileBlock*>(blocks + (t - slot) * token_bytes);
        quantize_token<kTileTokens, kTokensTogether>(x.values + t * x.cols, x.cols, slot, tile);
    }
    if (end <= num_tiled) return;
    const std::int64_t first = begin < num_tiled ? 0 : begin - num_tiled;
    rest_kernels()->quantize_rows(rest_of(x, num_tiled), first, end - num_tiled,
                                  blocks + num_tiled * token_bytes);
}

#include "kernels/unpacked_block.h"

using MatmulOfFormat = void(const Matrix&, const Activations&, std::int64_t, std::int64_t, std::int64_t,
                            float*, std::int64_t);
template <Format f>
constexpr MatmulOfFormat* kernel_of() {
    if constexpr (is_low_bit(f)) return multiply_unpacked<f>;
    return nullptr;
}
template <typename Numbers>
struct MatmulTable;
template <int... f>
struct MatmulTable<std::integer_sequence<int, f...>> {
    static constexpr MatmulOfFormat* kEntries[] = {kernel_of<static_cast<Format>(f)>()...};
};

void matmul(const Matrix& w, const Activations& x, std::int64_t begin, std::int64_t end, float* out,
            std::int64_t stride) {
    using Table = MatmulTable<std::make_integer_sequence<int, kNumFormats>>;
    const std::int64_t num_tiled = is_low_bit(w.format) ? num_in_tiles(x) : 0;
    if (num_tiled > 0) {
        Table::kEntries[static_cast<int>(w.format)](w, x, num_tiled, begin, end, out, stride);
    }
    if (num_tiled < x.num_tokens) {
        rest_kernels()->matmul(w, rest_of(x, num_tiled), begin, end, out + num_tiled * stride, stride);
    }
}

// The other set's kernels with these two.
Kernels with_tiles(const char* name) {
    Kernels all = *rest_kernels();
    all.name = name;
    all.quantize_rows = quantize_rows;
    all.matmul = matmul;
    return all;
}
