// Which tokens share a tile of kMaxTokens. Included textually, as loops.h is.

// An unfilled tile takes as long as a full one, a token alone a fifth of that at 4 bits, a third at 3.
constexpr std::int64_t kUnfilledFrom = kMaxTokens / 2 + 1;

// How many tokens are in tiles.
inline std::int64_t num_tiled_tokens(const Activations& x) {
    if (x.are_apart) return 0;
    const std::int64_t left = x.num_tokens % kMaxTokens;
    return left >= kUnfilledFrom ? x.num_tokens : x.num_tokens - left;
}
