// Where the end of a text stood before in it: what followed there is a guess at what follows now.
//
// Chains of equal hashes, as compressors of the LZ77 kind keep them: a table has the latest place of every
// hash of kFewest tokens, and each place knows the one before it. Adding a token takes constant time, and so
// does looking. It takes 8 bytes for a token and 4 to 8 for its table.
#pragma once

#include <cstdint>
#include <vector>

namespace edgemoe {

class SuffixIndex {
  public:
    // Tokens that must agree before what followed is worth a guess.
    static constexpr std::int32_t kFewest = 3;
    // Tokens that are compared: whether more agree says little.
    static constexpr std::int32_t kLongest = 32;
    // Places that are compared, the latest first: in text that repeats one phrase there is no end of them.
    static constexpr int kMostPlaces = 32;

    // The `length` tokens before `end` are also the text's last ones. Length 0: there is no such place.
    struct Match {
        std::int32_t end = 0;
        std::int32_t length = 0;
    };

    SuffixIndex();

    std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }

    // The text goes on with this token.
    void push(std::int32_t token);

    // Where as many as possible of the text's last tokens stood before; of equal places the latest.
    Match find() const;

    // The token that stood `i` after the end of a match; where the text ends, it is taken to go on repeating
    // itself.
    std::int32_t after(Match match, std::int64_t i) const {
        const std::int64_t period = size() - match.end;
        return tokens_[static_cast<std::size_t>(match.end + i % period)];
    }

  private:
    std::int32_t common(std::int32_t end) const;
    void link(std::int32_t end);
    void widen();

    std::vector<std::int32_t> tokens_;
    std::vector<std::int32_t> latest_;  // by hash: the end of the latest place, or -1
    std::vector<std::int32_t> before_;  // by the end of a place: that of the one before, of the same hash
};

}  // namespace edgemoe
