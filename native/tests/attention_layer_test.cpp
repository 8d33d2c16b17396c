// A decoder layer's attention under the sanitizers: bits that must not depend on how the work is cut. What it
// means is compared with NumPy in tests/native/test_attention.py.
#include "ops/attention_layer.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/quantize.h"
#include "tests/check.h"
#include "tests/random.h"

namespace edgemoe {
namespace {

using testing::normal;

constexpr std::int64_t kWidth = 96, kHeads = 4, kKvHeads = 2, kHeadDim = 24, kPairs = 8, kSlots = 40;
constexpr std::int64_t kQWidth = kHeads * kHeadDim, kKvWidth = kKvHeads * kHeadDim, kTokens = 19;

// A layer with everything that a family may have, its matrices in several formats.
struct Model {
    std::vector<std::uint8_t> packed[4];
    std::vector<float> biases[4], norm = normal(kWidth, 1), q_norm, k_norm;
    std::vector<float> cos, sin;
    AttentionLayer layer{};

    explicit Model(bool has_norms_of_heads) {
        q_norm = normal(has_norms_of_heads ? kHeadDim : kQWidth, 2);
        k_norm = normal(has_norms_of_heads ? kHeadDim : kKvWidth, 3);
        for (std::int64_t i = 0; i < kTokens * kPairs; ++i) {
            const auto angle = static_cast<float>(i / kPairs * (i % kPairs + 1)) / 5;
            cos.push_back(std::cos(angle));
            sin.push_back(std::sin(angle));
        }
        layer.num_heads = kHeads;
        layer.num_kv_heads = kKvHeads;
        layer.head_dim = layer.value_dim = kHeadDim;
        layer.scale = 0.2f;
        layer.window = 7;
        layer.clip = 1.5f;
        layer.eps = 1e-6f;
        layer.norm_width = kWidth;
        layer.norm = norm.data();
        layer.q = projection(0, Format::kQ4, kQWidth, kWidth);
        layer.k = projection(1, Format::kQ8, kKvWidth, kWidth);
        layer.v = projection(2, Format::kF32, kKvWidth, kWidth);
        layer.o = projection(3, Format::kQ6, kWidth, kQWidth);
        layer.has_norms_of_heads = has_norms_of_heads;
        layer.q_norm = q_norm.data();
        layer.k_norm = k_norm.data();
    }

    AttentionLayer::Projection projection(int index, Format format, std::int64_t rows, std::int64_t cols) {
        const auto seed = static_cast<unsigned>(10 + index);
        packed[index].resize(static_cast<std::size_t>(packed_bytes(format, rows, cols)));
        quantize(normal(rows * cols, seed).data(), rows, cols, format, nullptr, packed[index].data());
        biases[index] = normal(rows, seed + 10);
        return {{packed[index].data(), format, rows, cols}, biases[index].data()};
    }

    // What becomes of a text that comes so many tokens at a time.
    std::vector<float> run(std::int64_t chunk) const {
        std::vector<float> x = normal(kTokens * kWidth, 30);
        std::vector<std::uint16_t> keys(kKvHeads * kSlots * kHeadDim), values(keys.size());
        for (std::int64_t start = 0; start < kTokens; start += chunk) {
            const std::int64_t angles = start * kPairs;
            const std::int64_t count = std::min(chunk, kTokens - start);
            const KvLayout layout = {kKvHeads, kSlots, kHeadDim, true};
            const AttentionLayer::Segment segments[] = {{0, count, start, keys.data(), values.data(), layout,
                                                         cos.data() + angles, sin.data() + angles, kPairs,
                                                         nullptr, 0}};
            layer.run(x.data() + start * kWidth, count, segments);
        }
        return x;
    }
};

}  // namespace

TEST(a_layer_gives_the_same_bits_however_a_text_is_cut_on_any_number_of_threads) {
    const int threads_before = num_threads();
    for (const Kernels* kernels : available_kernels()) {
        force_kernels(kernels->name);
        for (const bool has_norms_of_heads : {false, true}) {
            const Model model(has_norms_of_heads);
            set_num_threads(1);
            const std::vector<float> whole = model.run(kTokens);
            for (const int count : {1, 2, 5}) {
                set_num_threads(count);
                for (const std::int64_t chunk : {std::int64_t{1}, std::int64_t{8}, kTokens}) {
                    const std::vector<float> cut = model.run(chunk);
                    CHECK(std::memcmp(cut.data(), whole.data(), cut.size() * sizeof(float)) == 0);
                }
            }
        }
    }
    set_num_threads(threads_before);
}

}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
