// Which tokens share a tile. Included textually, as loops.h is.

// From here on what is left over is a tile of kMaxTokens, which takes as long unfilled as full.
constexpr std::int64_t kUnfilledFrom = kMaxTokens / 2 + 1;

// How many tokens are in tiles of kMaxTokens.
inline std::int64_t num_tiled_tokens(const Activations& x) {
    if (x.are_apart) return 0;
    const std::int64_t left = x.num_tokens % kMaxTokens;
    return left >= kUnfilledFrom ? x.num_tokens : x.num_tokens - left;
}

// Tokens of a tile of those that are left, which need one tile at most: 1, 2 or 4.
inline int width_of_rest(const Activations& x) {
    const std::int64_t left = x.are_apart ? 1 : x.num_tokens % kMaxTokens;
    return left <= 2 ? static_cast<int>(left) : 4;
}
