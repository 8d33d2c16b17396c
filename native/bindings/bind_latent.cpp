// Latent attention for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/kv_cache.h"
#include "bindings/mixer_binding.h"
#include "bindings/packed_matrix.h"
#include "ops/latent_layer.h"

namespace edgemoe::bindings {
namespace {

constexpr const char* kLayer = "LatentLayer";

constexpr const char* kDoc = R"(Latent attention in its absorbed form (DeepSeek-V2, arXiv 2405.04434).

Letters: H heads, Q rank of queries, L latent dimension, N and R plain and rotated dimension of a query's head, C
dimension of a value's, S slots; N', Q' and L' are N, Q and L rounded up to 32, C' and L'' are C and L
rounded up to 16. `norm` (D,) is applied to what comes in. Queries are made by `q_a`, a pair of (matrix (Q', D), bias or None) and its norm (Q,), then `q_b` (H (N +
R), Q'); with None in place of `q_a` by `q_b` (H (N + R), D) alone. `kv_a`, a pair of a matrix (L + R, D) and its
bias or None, makes a latent vector, which passes `kv_a_norm` (L,), and a key that rotates; both are what the cache
keeps. `k_b` (H L'', N') has each head's matrix of keys transposed, `v_b` (H C', L') that of values, both with zeros
where they are wider than the head; `o` is a pair of a matrix (D, H C rounded up to 32) and its bias or None. The logistic function
of `gate` (H, D), if any, multiplies what each head finds. Scores are multiplied by `scale`; what comes out passes `post_norm` (D,), if any, and is added to x times `branch_scale`.)";

constexpr const char* kRunDoc = R"(Add to x (T, D) what its rows see.

A segment holds the rows of one text: a tuple (first row, number of rows, cache, start, rotation). Its rows stand
from slot `start` on of its cache (1, S, L + R) of float16 or float32, where their own latents are written first;
`rotation` is None or cos and sin (rows, R / 2) of the angles by which pairs (i, R / 2 + i) of queries and keys are
rotated. Segments follow each other and cover all rows.

Raises:
    ValueError: shapes do not fit.
    OverflowError: float16 cannot hold a latent.)";

// A matrix and its bias, or none.
using Projection = std::pair<GivenMatrix, std::optional<Floats1>>;
// First row, number of rows, cache, first slot, cos and sin.
using Segment =
    std::tuple<std::int64_t, std::int64_t, Cache, std::int64_t, std::optional<std::pair<Floats2, Floats2>>>;

// Holds what the layer points to.
class BoundLatentLayer {
  public:
    BoundLatentLayer(Floats1 norm, float eps, std::optional<std::pair<Projection, Floats1>> q_a,
                     GivenMatrix q_b, Projection kv_a, Floats1 kv_a_norm, GivenMatrix k_b, GivenMatrix v_b,
                     Projection o, std::int64_t num_heads, std::int64_t plain_dim, std::int64_t rotary_dim,
                     std::int64_t value_dim, float scale, float inner_eps, std::optional<Floats1> post_norm,
                     float branch_scale, std::optional<GivenMatrix> gate)
        : layer_{} {
        const std::int64_t width = filled_cols(size(norm, 0)), latent_dim = size(kv_a_norm, 0);
        require(num_heads > 0 && latent_dim > 0 && plain_dim > 0 && rotary_dim > 0 && rotary_dim % 2 == 0 &&
                    value_dim > 0,
                kLayer, "a size is out of range");
        layer_.num_heads = num_heads;
        layer_.latent_dim = latent_dim;
        layer_.plain_dim = plain_dim;
        layer_.rotary_dim = rotary_dim;
        layer_.value_dim = value_dim;
        layer_.scale = scale;
        layer_.eps = eps;
        layer_.inner_eps = inner_eps;
        layer_.branch_scale = branch_scale;
        layer_.norm_width = size(norm, 0);
        layer_.norm = keep(norm, layer_.norm_width, "length of norm");
        std::int64_t query_width = width;
        if (q_a) {
            const auto& [projection, q_a_norm] = *q_a;
            layer_.query_rank = size(q_a_norm, 0);
            query_width = filled_cols(layer_.query_rank);
            layer_.q_a = matrix(projection.first, query_width, width);
            if (projection.second)
                layer_.q_a_bias = keep(*projection.second, query_width, "length of a bias");
            layer_.q_a_norm = keep(q_a_norm, layer_.query_rank, "length of q_a_norm");
        }
        layer_.q_b = matrix(q_b, num_heads * (plain_dim + rotary_dim), query_width);
        layer_.kv_a = matrix(kv_a.first, latent_dim + rotary_dim, width);
        if (kv_a.second) {
            layer_.kv_a_bias = keep(*kv_a.second, latent_dim + rotary_dim, "length of a bias");
        }
        layer_.kv_a_norm = keep(kv_a_norm, latent_dim, "length of kv_a_norm");
        layer_.k_b = matrix(k_b, num_heads * round_up(latent_dim, kRowGroup), filled_cols(plain_dim));
        layer_.v_b = matrix(v_b, num_heads * round_up(value_dim, kRowGroup), filled_cols(latent_dim));
        layer_.o = matrix(o.first, width, filled_cols(num_heads * value_dim));
        if (o.second) layer_.o_bias = keep(*o.second, width, "length of a bias");
        if (post_norm) layer_.post_norm = keep(*post_norm, layer_.norm_width, "length of post_norm");
        if (gate) layer_.gate = matrix(*gate, num_heads, width);
    }

    void run(MutableFloats2 x, const std::vector<Segment>& segments) const {
        require_equal(size(x, 1), layer_.o.rows, kLayer, "input row length");
        std::vector<LatentLayer::Segment> checked;
        checked.reserve(segments.size());
        std::int64_t row = 0;
        for (const Segment& segment : segments) {
            checked.push_back(check(segment));
            require_equal(checked.back().first_row, row, kLayer, "first row of a segment");
            row += checked.back().num_rows;
        }
        require_equal(row, size(x, 0), kLayer, "number of rows in segments");
        nb::gil_scoped_release release;
        layer_.run(x.data(), row, checked);
    }

  private:
    static std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
        return (value + multiple - 1) / multiple * multiple;
    }

    const float* keep(const Floats1& values, std::int64_t length, const char* what) {
        require_equal(size(values, 0), length, kLayer, what);
        vectors_.push_back(values);
        return values.data();
    }

    Matrix matrix(const GivenMatrix& given, std::int64_t rows, std::int64_t cols) {
        const Matrix& found = matrix_of(given);
        require_equal(found.rows, rows, kLayer, "number of rows of a projection");
        require_equal(found.cols, cols, kLayer, "row length of a projection");
        matrices_.push_back(nb::borrow(given));
        return found;
    }

    LatentLayer::Segment check(const Segment& segment) const {
        const auto& [first_row, num_rows, cache, start, rotation] = segment;
        const KvLayout layout = layout_of(cache, kLayer);
        require(num_rows > 0, kLayer, "a segment without rows");
        require_equal(layout.num_heads, 1, kLayer, "number of heads in the cache");
        require_equal(layout.head_dim, layer_.latent_dim + layer_.rotary_dim, kLayer,
                      "head dimension in the cache");
        require(start >= 0 && start <= layout.num_slots - num_rows, kLayer, "positions outside the cache");
        LatentLayer::Segment checked = {first_row, num_rows, start, cache.data(), layout, nullptr, nullptr};
        if (rotation) {
            const auto& [cos, sin] = *rotation;
            for (const Floats2& angles : {cos, sin}) {
                require(size(angles, 0) == num_rows && 2 * size(angles, 1) == layer_.rotary_dim, kLayer,
                        "cos and sin have not an angle for each pair of each row");
            }
            checked.cos = cos.data();
            checked.sin = sin.data();
        }
        return checked;
    }

    std::vector<Floats1> vectors_;
    std::vector<nb::object> matrices_;
    LatentLayer layer_;
};

const MixerBinding kBinding(kLayer, [](nb::module_& mixers, const char* name) {
    nb::class_<BoundLatentLayer>(mixers, name, kDoc)
        .def(
            nb::init<Floats1, float, std::optional<std::pair<Projection, Floats1>>, GivenMatrix, Projection,
                     Floats1, GivenMatrix, GivenMatrix, Projection, std::int64_t, std::int64_t, std::int64_t,
                     std::int64_t, float, float, std::optional<Floats1>, float, std::optional<GivenMatrix>>(),
            nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("q_a").none(), nb::arg("q_b"),
            nb::arg("kv_a"), nb::arg("kv_a_norm").noconvert(), nb::arg("k_b"), nb::arg("v_b"), nb::arg("o"),
            nb::kw_only(), nb::arg("num_heads"), nb::arg("plain_dim"), nb::arg("rotary_dim"),
            nb::arg("value_dim"), nb::arg("scale"), nb::arg("inner_eps"),
            nb::arg("post_norm").none() = nb::none(), nb::arg("branch_scale") = 1.0f,
            nb::arg("gate").none() = nb::none(), kKeptDoc)
        .def_static(
            "working_bytes",
            [](std::int64_t num_rows, std::int64_t num_keys, std::int64_t width, std::int64_t num_heads,
               std::int64_t query_rank, std::int64_t latent_dim, std::int64_t plain_dim,
               std::int64_t rotary_dim, std::int64_t value_dim) {
                return LatentLayer::working_bytes(
                    num_rows, num_keys,
                    {width, num_heads, query_rank, latent_dim, plain_dim, rotary_dim, value_dim});
            },
            nb::arg("num_rows"), nb::arg("num_keys"), nb::kw_only(), nb::arg("width"), nb::arg("num_heads"),
            nb::arg("query_rank"), nb::arg("latent_dim"), nb::arg("plain_dim"), nb::arg("rotary_dim"),
            nb::arg("value_dim"), kWorkingOfKeysDoc)
        .def("run", &BoundLatentLayer::run, nb::arg("x").noconvert(), nb::arg("segments"), kRunDoc);
});

}  // namespace
}  // namespace edgemoe::bindings
