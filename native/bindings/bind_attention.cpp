// Attention for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "ops/attention_layer.h"
#include "ops/ops.h"

namespace edgemoe::bindings {
namespace {

// f16 has no C++ type: the caches are taken untyped and their dtype is looked at.
using Cache = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

KvLayout layout_of(const Cache& cache, const char* operation) {
    const bool is_f16 =
        cache.dtype() == nb::dlpack::dtype{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    require(is_f16 || cache.dtype() == nb::dtype<float>(), operation, "a cache is float16 or float32");
    return {size(cache, 0), size(cache, 1), size(cache, 2), is_f16};
}

KvLayout layout_of_both(const Cache& keys, const Cache& values, const char* operation) {
    const KvLayout layout = layout_of(keys, operation), other = layout_of(values, operation);
    require(layout.num_heads == other.num_heads && layout.num_slots == other.num_slots &&
                layout.head_dim == other.head_dim && layout.is_f16 == other.is_f16,
            operation, "keys and values differ in shape or type");
    return layout;
}

// Positions below `end` occur. Returns the reach.
std::int64_t require_bias(const Floats2& bias, std::int64_t num_heads, std::int64_t end,
                          const char* operation) {
    require_equal(size(bias, 0), num_heads, operation, "number of rows of bias");
    const std::int64_t reach = (size(bias, 1) + 1) / 2;
    require(size(bias, 1) % 2 == 1 && end <= reach, operation, "bias does not reach as far as the positions");
    return reach;
}

void store_kv_at(Cache cache, Floats3 x, std::int64_t start) {
    const KvLayout layout = layout_of(cache, "store_kv");
    require_equal(size(x, 1), layout.num_heads, "store_kv", "number of heads");
    require_equal(size(x, 2), layout.head_dim, "store_kv", "head dimension");
    require(start >= 0 && start <= layout.num_slots - size(x, 0), "store_kv", "positions outside the cache");
    nb::gil_scoped_release release;
    store_kv(cache.data(), layout, x.data(), size(x, 0), start);
}

void attention_into(Floats3 q, Cache keys, Cache values, std::int64_t start, float scale, std::int64_t window,
                    std::int64_t num_keys, std::optional<Floats2> bias, MutableFloats3 out) {
    constexpr const char* kName = "attention";
    const KvLayout layout = layout_of_both(keys, values, kName);
    require_equal(size(q, 2), layout.head_dim, kName, "head dimension");
    require(layout.num_heads > 0 && size(q, 1) % layout.num_heads == 0, kName,
            "query heads are not a multiple of key heads");
    require(num_keys >= 0 && num_keys <= layout.num_slots, kName, "num_keys is outside the cache");
    require(start >= 0 && (num_keys > 0 || start <= layout.num_slots - size(q, 0)), kName,
            "positions outside the cache");
    require(num_keys == 0 || window == 0, kName, "window and num_keys exclude each other");
    for (std::size_t axis = 0; axis < 3; ++axis) {
        require_equal(size(out, axis), size(q, axis), kName, "an axis of out");
    }
    Attention a = {size(q, 0), size(q, 1), start, window, scale};
    a.num_keys = num_keys;
    if (bias) {
        a.bias = bias->data();
        a.bias_reach = require_bias(*bias, a.num_heads, std::max(start + a.num_tokens, num_keys), kName);
    }
    nb::gil_scoped_release release;
    attention(q.data(), keys.data(), values.data(), layout, a, out.data());
}

constexpr const char* kLayer = "AttentionLayer";

// Holds what the layer points to.
class BoundAttentionLayer {
  public:
    // A matrix and its bias, or none.
    using Projection = std::pair<nb::object, std::optional<Floats1>>;

    BoundAttentionLayer(Floats1 norm, float eps, std::array<Projection, 4> qkvo,
                        std::optional<std::pair<Floats1, Floats1>> qk_norms, bool has_norms_of_heads,
                        std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim, float clip,
                        float scale, std::int64_t window)
        : norm_(std::move(norm)), qkvo_(std::move(qkvo)), qk_norms_(std::move(qk_norms)), layer_{} {
        require(num_kv_heads > 0 && num_heads > 0 && num_heads % num_kv_heads == 0, kLayer,
                "query heads are not a multiple of key heads");
        require(head_dim > 0 && window >= 0 && clip >= 0, kLayer,
                "head dimension, window or clip is out of range");
        const std::int64_t width = size(norm_, 0), q_width = num_heads * head_dim,
                           kv_width = num_kv_heads * head_dim;
        layer_.num_heads = num_heads;
        layer_.num_kv_heads = num_kv_heads;
        layer_.head_dim = head_dim;
        layer_.scale = scale;
        layer_.window = window;
        layer_.clip = clip;
        layer_.eps = eps;
        layer_.norm = norm_.data();
        layer_.q = projection(0, q_width, width);
        layer_.k = projection(1, kv_width, width);
        layer_.v = projection(2, kv_width, width);
        layer_.o = projection(3, width, q_width);
        if (!qk_norms_) return;
        const auto& [q_norm, k_norm] = *qk_norms_;
        require_equal(size(q_norm, 0), has_norms_of_heads ? head_dim : q_width, kLayer, "length of q_norm");
        require_equal(size(k_norm, 0), has_norms_of_heads ? head_dim : kv_width, kLayer, "length of k_norm");
        layer_.has_norms_of_heads = has_norms_of_heads;
        layer_.q_norm = q_norm.data();
        layer_.k_norm = k_norm.data();
    }

    void run(MutableFloats2 x, Cache keys, Cache values, std::int64_t start,
             std::optional<std::pair<Floats2, Floats2>> rotation, std::optional<Floats2> bias) const {
        const std::int64_t tokens = size(x, 0);
        require_equal(size(x, 1), layer_.q.matrix.cols, kLayer, "input row length");
        const KvLayout layout = layout_of_both(keys, values, kLayer);
        require_equal(layout.num_heads, layer_.num_kv_heads, kLayer, "number of heads in the cache");
        require_equal(layout.head_dim, layer_.head_dim, kLayer, "head dimension in the cache");
        require(start >= 0 && start <= layout.num_slots - tokens, kLayer, "positions outside the cache");
        AttentionLayer::Positions positions{};
        positions.start = start;
        if (rotation) {
            const auto& [cos, sin] = *rotation;
            require(size(cos, 0) == tokens && size(sin, 0) == tokens && size(cos, 1) == size(sin, 1), kLayer,
                    "cos and sin differ in shape, or have not a row for each token");
            positions.num_pairs = size(cos, 1);
            require(2 * positions.num_pairs <= layer_.head_dim, kLayer,
                    "more rotated dimensions than the head has");
            positions.cos = cos.data();
            positions.sin = sin.data();
        }
        if (bias) {
            positions.bias = bias->data();
            positions.bias_reach = require_bias(*bias, layer_.num_heads, start + tokens, kLayer);
        }
        nb::gil_scoped_release release;
        layer_.run(x.data(), tokens, positions, keys.data(), values.data(), layout);
    }

  private:
    AttentionLayer::Projection projection(std::size_t index, std::int64_t rows, std::int64_t cols) const {
        const auto& [object, bias] = qkvo_[index];
        const Matrix& matrix = *nb::cast<const PackedMatrix&>(object);
        require_equal(matrix.rows, rows, kLayer, "number of rows of a projection");
        require_equal(matrix.cols, cols, kLayer, "row length of a projection");
        if (bias) require_equal(size(*bias, 0), rows, kLayer, "length of a bias");
        return {matrix, bias ? bias->data() : nullptr};
    }

    Floats1 norm_;
    std::array<Projection, 4> qkvo_;
    std::optional<std::pair<Floats1, Floats1>> qk_norms_;
    AttentionLayer layer_;
};

}  // namespace

void bind_attention(nb::module_& m) {
    m.def("store_kv", &store_kv_at, nb::arg("cache").noconvert(), nb::arg("new").noconvert(),
          nb::arg("start"));
    m.def("attention_into", &attention_into, nb::arg("q").noconvert(), nb::arg("keys").noconvert(),
          nb::arg("values").noconvert(), nb::arg("start"), nb::arg("scale"), nb::arg("window"),
          nb::arg("num_keys"), nb::arg("bias").none(), nb::arg("out").noconvert());
    nb::class_<BoundAttentionLayer>(m, kLayer)
        .def(nb::init<Floats1, float, std::array<BoundAttentionLayer::Projection, 4>,
                      std::optional<std::pair<Floats1, Floats1>>, bool, std::int64_t, std::int64_t,
                      std::int64_t, float, float, std::int64_t>(),
             nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("qkvo"), nb::arg("qk_norms").none(),
             nb::kw_only(), nb::arg("has_norms_of_heads"), nb::arg("num_heads"), nb::arg("num_kv_heads"),
             nb::arg("head_dim"), nb::arg("clip"), nb::arg("scale"), nb::arg("window"))
        .def("run", &BoundAttentionLayer::run, nb::arg("x").noconvert(), nb::arg("keys").noconvert(),
             nb::arg("values").noconvert(), nb::arg("start"), nb::arg("rotation").none(),
             nb::arg("bias").none());
}

}  // namespace edgemoe::bindings
