// Packed matrices for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "core/thread_pool.h"
#include "kernels/block_writing.h"
#include "kernels/descent.h"
#include "kernels/exact_blocks.h"
#include "kernels/expert_ffn.h"
#include "kernels/matmul.h"
#include "kernels/quantize.h"

namespace edgemoe::bindings {
namespace {

std::int64_t packed_num_bytes(const std::string& format, std::int64_t rows, std::int64_t cols) {
    const Format f = format_named(format);
    check_shape("packed_num_bytes", rows, cols, f);
    return packed_bytes(f, rows, cols);
}

void quantize_into(Floats2 weights, const std::string& format, std::optional<Floats1> importance,
                   MutableBytes packed) {
    const auto rows = static_cast<std::int64_t>(weights.shape(0)),
               cols = static_cast<std::int64_t>(weights.shape(1));
    check_shape("quantize", rows, cols);
    const Format f = format_named(format);
    require(traits(f).is_rounded, "quantize", "format " + format + " is made of exact blocks alone");
    require_equal(static_cast<std::int64_t>(packed.size()), packed_bytes(f, rows, cols), "quantize",
                  "number of packed bytes");
    if (importance) {
        require_equal(static_cast<std::int64_t>(importance->size()), cols, "quantize",
                      "length of importance");
    }
    nb::gil_scoped_release release;
    quantize(weights.data(), rows, cols, f, importance ? importance->data() : nullptr, packed.data());
}

void refine_into(Floats2 weights, const std::string& format, Floats2 gram, MutableBytes packed) {
    constexpr const char* kName = "refine";
    const auto rows = static_cast<std::int64_t>(weights.shape(0)),
               cols = static_cast<std::int64_t>(weights.shape(1));
    check_shape(kName, rows, cols);
    const Format f = format_named(format);
    require(traits(f).is_refined, kName, "format " + format + " is not refined");
    require_equal(static_cast<std::int64_t>(packed.size()), packed_bytes(f, rows, cols), kName,
                  "number of packed bytes");
    require_equal(static_cast<std::int64_t>(gram.shape(0)), cols, kName, "number of rows of gram");
    require_equal(static_cast<std::int64_t>(gram.shape(1)), cols, kName, "row length of gram");
    for (std::int64_t i = 0; i < cols; ++i) {
        require(gram.data()[i * cols + i] > 0, kName, "the diagonal of gram is not positive");
    }
    nb::gil_scoped_release release;
    refine(weights.data(), rows, cols, f, gram.data(), packed.data());
}

// The first row with a weight that is not finite, or -1.
std::int64_t pack_blocks_into(Array<const std::uint8_t, nb::ndim<2>> blocks, const std::string& format,
                              std::int64_t cols, MutableBytes packed) {
    constexpr const char* kName = "pack_blocks";
    const Format f = format_named(format);
    require(packs_blocks(f), kName, "format " + format + " is not made of blocks");
    check_shape(kName, size(blocks, 0), cols, f);
    require_equal(size(blocks, 1), block_row_bytes(f, cols), kName, "bytes of a row");
    require_equal(size(packed, 0), packed_bytes(f, size(blocks, 0), cols), kName, "number of packed bytes");
    nb::gil_scoped_release release;
    return pack_blocks(blocks.data(), size(blocks, 0), cols, f, packed.data());
}

std::int64_t pack_mxfp4_into(Array<const std::uint8_t, nb::ndim<3>> nibbles,
                             Array<const std::uint8_t, nb::ndim<2>> exponents, MutableBytes packed) {
    constexpr const char* kName = "pack_mxfp4";
    const std::int64_t rows = size(exponents, 0), cols = size(exponents, 1) * kBlock;
    check_shape(kName, rows, cols);
    require_equal(size(nibbles, 0), rows, kName, "number of rows of nibbles");
    require_equal(size(nibbles, 1), size(exponents, 1), kName, "number of blocks of a row of nibbles");
    require_equal(size(nibbles, 2), kBlock / 2, kName, "bytes of a block of nibbles");
    require_equal(size(packed, 0), packed_bytes(Format::kMxfp4, rows, cols), kName, "number of packed bytes");
    nb::gil_scoped_release release;
    return pack_mxfp4(nibbles.data(), exponents.data(), rows, cols, packed.data());
}

std::int64_t pack_nvfp4_into(Array<const std::uint8_t, nb::ndim<2>> nibbles,
                             Array<const std::uint8_t, nb::ndim<2>> scales,
                             Array<const float, nb::ndim<1>> factors, MutableBytes packed) {
    constexpr const char* kName = "pack_nvfp4";
    const std::int64_t rows = size(nibbles, 0), cols = size(nibbles, 1) * 2;
    check_shape(kName, rows, cols, Format::kNvfp4);
    require_equal(size(scales, 0), rows, kName, "number of rows of scales");
    require_equal(size(scales, 1), cols / 16, kName, "number of scales of a row");
    require_equal(size(factors, 0), rows, kName, "number of factors");
    require_equal(size(packed, 0), packed_bytes(Format::kNvfp4, rows, cols), kName, "number of packed bytes");
    nb::gil_scoped_release release;
    return pack_nvfp4(nibbles.data(), scales.data(), factors.data(), rows, cols, packed.data());
}

// The block type that write_blocks makes of a format, or None.
std::optional<std::string> written_type(const std::string& format, std::int64_t cols) {
    const Format f = format_named(format);
    if (!writes_blocks(f, cols)) return std::nullopt;
    return traits(carrier(f, cols)).block_type;
}

void write_blocks_into(const PackedMatrix& matrix, Array<std::uint8_t, nb::ndim<2>> blocks) {
    constexpr const char* kName = "write_blocks";
    const Matrix& m = *matrix;
    require(writes_blocks(m.format, m.cols), kName,
            std::string("format ") + traits(m.format).name + " has no blocks for rows of this length");
    require_equal(size(blocks, 0), m.rows, kName, "number of rows");
    require_equal(size(blocks, 1), block_row_bytes(carrier(m.format, m.cols), m.cols), kName,
                  "bytes of a row");
    nb::gil_scoped_release release;
    write_blocks(m.packed, m.rows, m.cols, m.format, blocks.data());
}

void dequantize_rows_into(const PackedMatrix& matrix, Array<const std::int32_t, nb::ndim<1>> rows,
                          MutableFloats2 out) {
    const Matrix& m = *matrix;
    require_equal(static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(rows.size()),
                  "dequantize_rows", "number of output rows");
    require_equal(static_cast<std::int64_t>(out.shape(1)), m.cols, "dequantize_rows", "output row length");
    for (std::size_t i = 0; i < rows.size(); ++i) {
        require(rows.data()[i] >= 0 && rows.data()[i] < m.rows, "dequantize_rows",
                "row " + std::to_string(rows.data()[i]) + " is outside the matrix");
    }
    nb::gil_scoped_release release;
    parallel_for(static_cast<std::int64_t>(rows.size()), 16, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            dequantize_row(m.packed, m.cols, m.format, rows.data()[i], out.data() + i * m.cols);
        }
    });
}

void matmul_into(Floats2 x, const PackedMatrix& matrix, MutableFloats2 out) {
    const Matrix& m = *matrix;
    const auto tokens = static_cast<std::int64_t>(x.shape(0));
    require_equal(static_cast<std::int64_t>(x.shape(1)), m.cols, "matmul", "input row length");
    require_equal(static_cast<std::int64_t>(out.shape(0)), tokens, "matmul", "number of output rows");
    require_equal(static_cast<std::int64_t>(out.shape(1)), m.rows, "matmul", "output row length");
    nb::gil_scoped_release release;
    matmul(x.data(), tokens, m, out.data());
}

void expert_ffn_into(Floats2 x, const PackedMatrix* gate, const PackedMatrix& up, const PackedMatrix& down,
                     const std::string& activation,
                     std::optional<Array<const std::int32_t, nb::ndim<1>>> rows,
                     std::optional<Floats1> biases, MutableFloats2 out) {
    constexpr const char* kName = "expert_ffn";
    const Matrix &u = *up, &d = *down;
    const Matrix* g = gate ? &**gate : nullptr;
    const auto given = static_cast<std::int64_t>(x.shape(0));
    const std::int64_t tokens = rows ? static_cast<std::int64_t>(rows->size()) : given;
    if (rows) {
        require(std::all_of(rows->data(), rows->data() + tokens,
                            [=](std::int32_t row) { return row >= 0 && row < given; }),
                kName, "a row is outside the input");
    }
    require_equal(static_cast<std::int64_t>(x.shape(1)), u.cols, kName, "input row length");
    require_equal(d.cols, u.rows, kName, "row length of down");
    require_equal(d.rows, u.cols, kName, "number of rows of down");
    if (g) {
        require_equal(g->rows, u.rows, kName, "number of rows of gate");
        require_equal(g->cols, u.cols, kName, "row length of gate");
    }
    require_equal(static_cast<std::int64_t>(out.shape(0)), tokens, kName, "number of output rows");
    require_equal(static_cast<std::int64_t>(out.shape(1)), d.rows, kName, "output row length");
    if (biases) {
        require_equal(static_cast<std::int64_t>(biases->size()), (g ? 2 : 1) * u.rows + d.rows, kName,
                      "number of biases");
    }
    const Activation act = activation_named(activation);
    require(g != nullptr || !act.needs_gate(), kName, "the activation needs a gate");
    const ExpertMatrices matrices = {g ? std::optional(*g) : std::nullopt, u, d,
                                     biases ? biases->data() : nullptr};
    nb::gil_scoped_release release;
    expert_ffn(x.data(), tokens, matrices, act, out.data(), rows ? rows->data() : nullptr);
}

// Gate (or none), up, down.
using ExpertTuple = std::tuple<std::optional<GivenMatrix>, GivenMatrix, GivenMatrix>;

void expert_ffns_into(Floats2 x, const std::vector<ExpertTuple>& experts,
                      const std::vector<std::vector<std::int32_t>>& rows, const std::string& activation,
                      MutableFloats2 out) {
    constexpr const char* kName = "expert_ffns";
    const auto num_tokens = static_cast<std::int64_t>(x.shape(0)),
               width = static_cast<std::int64_t>(x.shape(1));
    require_equal(static_cast<std::int64_t>(out.shape(1)), width, kName, "output row length");
    require_equal(static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(experts.size()), kName,
                  "number of lists of rows");
    std::vector<ChosenExpert> chosen;
    std::int64_t num_parts = 0;
    for (std::size_t i = 0; i < experts.size(); ++i) {
        const auto& [gate, up, down] = experts[i];
        require(std::all_of(rows[i].begin(), rows[i].end(),
                            [=](std::int32_t row) { return row >= 0 && row < num_tokens; }),
                kName, "a row is outside the input");
        require(!rows[i].empty(), kName, "an expert has no rows");
        const std::int64_t start = num_parts, num_rows = std::ssize(rows[i]);
        num_parts += num_rows;
        require(num_parts <= static_cast<std::int64_t>(out.shape(0)), kName, "the output has too few rows");
        const std::optional<Matrix> g = gate ? std::optional(matrix_of(*gate)) : std::nullopt;
        chosen.push_back(
            {{g, matrix_of(up), matrix_of(down)}, rows[i].data(), num_rows, out.data() + start * width});
        const ExpertMatrices& one = chosen.back().matrices;
        const ExpertMatrices& other = chosen.front().matrices;
        require(one.gate.has_value() == other.gate.has_value(), kName,
                "some experts have a gate and some have none");
        const std::int64_t inner = other.up.rows;
        for (const Matrix* raising : {one.gate ? &*one.gate : &one.up, &one.up}) {
            require_equal(raising->rows, inner, kName, "number of rows of gate and up");
            require_equal(raising->cols, width, kName, "row length of gate and up");
        }
        require_equal(one.down.cols, inner, kName, "row length of down");
        require_equal(one.down.rows, width, kName, "number of rows of down");
    }
    const Activation act = activation_named(activation);
    nb::gil_scoped_release release;
    expert_ffns(x.data(), num_tokens, chosen, act);
}

// Name, bits, whether it is low-bit, rounded, refined, its block type or none, columns of a block, whether
// blocks are packed as they are.
using FormatTuple = std::tuple<std::string, int, bool, bool, bool, std::optional<std::string>, int, bool>;

// A row of kFormats for each format: what Python calls FormatTraits.
std::vector<FormatTuple> formats() {
    std::vector<FormatTuple> rows;
    for (int i = 0; i < kNumFormats; ++i) {
        const auto f = static_cast<Format>(i);
        const FormatTraits& t = traits(f);
        const auto block_type = t.block_type ? std::optional<std::string>(t.block_type) : std::nullopt;
        rows.emplace_back(t.name, t.bits, is_low_bit(f), t.is_rounded, t.is_refined, block_type, t.block_cols,
                          packs_blocks(f));
    }
    return rows;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
    return names;
}

}  // namespace

void bind_kernels(nb::module_& m) {
    m.attr("LAYOUT_VERSION") = kLayoutVersion;
    m.attr("ROW_GROUP") = kRowGroup;
    m.attr("BLOCK") = kBlock;
    m.def("formats", &formats);
    m.def("packed_num_bytes", &packed_num_bytes, nb::arg("format"), nb::arg("num_rows"), nb::arg("num_cols"));
    nb::class_<PackedMatrix>(m, "Matrix",
                             "A packed matrix (N, M). ``packed`` may be a view into a larger buffer.")
        .def(
            nb::init<nb::object, const std::string&, std::int64_t, std::int64_t>(), nb::arg("packed"),
            nb::arg("format"), nb::arg("num_rows"), nb::arg("num_cols"),
            nb::sig(
                "def __init__(self, packed: NDArray[numpy.uint8], format: str, num_rows: int, num_cols: int) "
                "-> None"))
        .def_prop_ro("packed", &PackedMatrix::packed, nb::sig("def packed(self) -> NDArray[numpy.uint8]"),
                     "The array that holds its bytes, not a copy.")
        .def_prop_ro(
            "format", [](const PackedMatrix& m) { return traits(m->format).name; }, "Its format's name.")
        .def_prop_ro(
            "num_rows", [](const PackedMatrix& m) { return m->rows; }, "N.")
        .def_prop_ro("num_cols", [](const PackedMatrix& m) { return m->cols; }, "M.");
    m.def("quantize_into", &quantize_into, nb::arg("weights").noconvert(), nb::arg("format"),
          nb::arg("importance").none(), nb::arg("packed").noconvert());
    m.def("refine_into", &refine_into, nb::arg("weights").noconvert(), nb::arg("format"),
          nb::arg("gram").noconvert(), nb::arg("packed").noconvert());
    m.def("pack_blocks_into", &pack_blocks_into, nb::arg("blocks").noconvert(), nb::arg("format"),
          nb::arg("num_cols"), nb::arg("packed").noconvert());
    m.def("pack_mxfp4_into", &pack_mxfp4_into, nb::arg("nibbles").noconvert(),
          nb::arg("exponents").noconvert(), nb::arg("packed").noconvert());
    m.def("pack_nvfp4_into", &pack_nvfp4_into, nb::arg("nibbles").noconvert(), nb::arg("scales").noconvert(),
          nb::arg("factors").noconvert(), nb::arg("packed").noconvert());
    m.def("written_type", &written_type, nb::arg("format"), nb::arg("num_cols"));
    m.def("write_blocks_into", &write_blocks_into, nb::arg("matrix"), nb::arg("blocks").noconvert());
    m.def("dequantize_rows_into", &dequantize_rows_into, nb::arg("matrix"), nb::arg("rows").noconvert(),
          nb::arg("out").noconvert());
    m.def("matmul_into", &matmul_into, nb::arg("x").noconvert(), nb::arg("matrix"),
          nb::arg("out").noconvert());
    m.def("expert_ffn_into", &expert_ffn_into, nb::arg("x").noconvert(), nb::arg("gate").none(),
          nb::arg("up"), nb::arg("down"), nb::arg("activation"), nb::arg("rows").noconvert().none(),
          nb::arg("biases").none(), nb::arg("out").noconvert());
    m.def("rounded_bytes", &rounded_bytes, nb::arg("num_rows"), nb::arg("num_cols"),
          nb::arg("are_apart") = false,
          "Bytes that a product of so many rows with a low-bit matrix takes at a time.");
    m.def("expert_ffn_bytes", &expert_ffn_bytes, nb::arg("num_tokens"), nb::arg("width"),
          nb::arg("inner_width"), nb::arg("has_gate"), nb::arg("chooses_rows") = false,
          "Most bytes that expert_ffn_into takes at a time, whatever the formats.");
    m.def("expert_ffns_into", &expert_ffns_into, nb::arg("x").noconvert(), nb::arg("experts"),
          nb::arg("rows"), nb::arg("activation"), nb::arg("out").noconvert());
    m.def("available_isas", &available_isas);
    m.def("active_isa", [] { return std::string(active_kernels().name); });
    m.def("force_isa", [](const std::string& name) { force_kernels(name.c_str()); }, nb::arg("name"));
    m.def("set_num_threads", &set_num_threads, nb::arg("count"));
    m.def("get_num_threads", &num_threads);
}

}  // namespace edgemoe::bindings
