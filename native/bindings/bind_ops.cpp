// Float operations for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "ops/ops.h"

namespace edgemoe::bindings {
namespace {

using Ints2 = Array<std::int32_t, nb::ndim<2>>;
// f16 has no C++ type: the caches are taken untyped and their dtype is looked at.
using Cache = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <typename A>
std::int64_t size(const A& array, std::size_t axis) {
    return static_cast<std::int64_t>(array.shape(axis));
}

void rms_norm_into(Floats2 x, Floats1 weight, float eps, MutableFloats2 out) {
    require_equal(size(weight, 0), size(x, 1), "rms_norm", "length of weight");
    require(out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), "rms_norm",
            "out and x differ in shape");
    nb::gil_scoped_release release;
    rms_norm(x.data(), size(x, 0), size(x, 1), weight.data(), eps, out.data());
}

void rope_inplace(MutableFloats3 x, Floats2 cos, Floats2 sin) {
    require(cos.shape(0) == sin.shape(0) && cos.shape(1) == sin.shape(1), "rope",
            "cos and sin differ in shape");
    require_equal(size(cos, 0), size(x, 0), "rope", "number of rows of cos");
    require(2 * size(cos, 1) <= size(x, 2), "rope", "more rotated dimensions than the head has");
    nb::gil_scoped_release release;
    rope(x.data(), size(x, 0), size(x, 1), size(x, 2), cos.data(), sin.data(), size(cos, 1));
}

KvLayout layout_of(const Cache& cache, const char* operation) {
    const bool is_f16 =
        cache.dtype() == nb::dlpack::dtype{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    require(is_f16 || cache.dtype() == nb::dtype<float>(), operation, "a cache is float16 or float32");
    return {size(cache, 0), size(cache, 1), size(cache, 2), is_f16};
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
    const KvLayout layout = layout_of(keys, kName), other = layout_of(values, kName);
    require(layout.num_heads == other.num_heads && layout.num_slots == other.num_slots &&
                layout.head_dim == other.head_dim && layout.is_f16 == other.is_f16,
            kName, "keys and values differ in shape or type");
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
        require_equal(size(*bias, 0), a.num_heads, kName, "number of rows of bias");
        a.bias = bias->data();
        a.bias_reach = (size(*bias, 1) + 1) / 2;
        require(size(*bias, 1) % 2 == 1 && std::max(start + a.num_tokens, num_keys) <= a.bias_reach, kName,
                "bias does not reach as far as the positions");
    }
    nb::gil_scoped_release release;
    attention(q.data(), keys.data(), values.data(), layout, a, out.data());
}

void route_into(Floats2 logits, bool softmax_first, bool renormalize, Ints2 ids, MutableFloats2 weights) {
    require(ids.shape(1) >= 1 && ids.shape(1) <= logits.shape(1), "route",
            "top_k is outside 1..number of experts");
    require(ids.shape(0) == logits.shape(0) && weights.shape(0) == logits.shape(0) &&
                weights.shape(1) == ids.shape(1),
            "route", "outputs differ in shape");
    nb::gil_scoped_release release;
    route(logits.data(), size(logits, 0), size(logits, 1), size(ids, 1), softmax_first, renormalize,
          ids.data(), weights.data());
}

void combine_into(Floats2 parts, Floats2 weights, MutableFloats2 out) {
    require(size(parts, 0) == size(weights, 0) * size(weights, 1), "combine",
            "as many parts as weights are needed");
    require(out.shape(0) == weights.shape(0) && out.shape(1) == parts.shape(1), "combine",
            "out has the wrong shape");
    nb::gil_scoped_release release;
    combine(parts.data(), nullptr, weights.data(), size(weights, 0), size(weights, 1), size(parts, 1),
            out.data());
}

}  // namespace

void bind_ops(nb::module_& m) {
    m.def("rms_norm_into", &rms_norm_into, nb::arg("x").noconvert(), nb::arg("weight").noconvert(),
          nb::arg("eps"), nb::arg("out").noconvert());
    m.def("rope_inplace", &rope_inplace, nb::arg("x").noconvert(), nb::arg("cos").noconvert(),
          nb::arg("sin").noconvert());
    m.def("store_kv", &store_kv_at, nb::arg("cache").noconvert(), nb::arg("new").noconvert(),
          nb::arg("start"));
    m.def("attention_into", &attention_into, nb::arg("q").noconvert(), nb::arg("keys").noconvert(),
          nb::arg("values").noconvert(), nb::arg("start"), nb::arg("scale"), nb::arg("window"),
          nb::arg("num_keys"), nb::arg("bias").none(), nb::arg("out").noconvert());
    m.def("route_into", &route_into, nb::arg("logits").noconvert(), nb::arg("softmax_first"),
          nb::arg("renormalize"), nb::arg("ids").noconvert(), nb::arg("weights").noconvert());
    m.def("combine_into", &combine_into, nb::arg("parts").noconvert(), nb::arg("weights").noconvert(),
          nb::arg("out").noconvert());
}

}  // namespace edgemoe::bindings
