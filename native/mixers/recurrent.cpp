#include "mixers/recurrent.h"

namespace edgemoe {

void convolve(const CausalConv& conv, const float* x, const RecurrentSegment& segment, bool commits,
              float* out) {
    if (segment.moves_on(commits)) {
        conv.run(x, segment.num_rows, segment.tail, out);
        return;
    }
    std::vector<float> spare(segment.tail, segment.tail + conv.tail_size());
    conv.run(x, segment.num_rows, spare.data(), out);
}

void add_scaled(const float* added, std::int64_t count, float scale, float* x) {
    for (std::int64_t i = 0; i < count; ++i) x[i] += scale * added[i];
}

}  // namespace edgemoe
