// Layers that run from the expert cache, for Python. A layer runs without the GIL and takes it for what is
// written in Python: observers here, readers, checks and predictors in bind_cache.cpp and
// bind_speculation.cpp.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "bindings/routed.h"
#include "experts/expert_cache.h"
#include "experts/layer_output.h"
#include "experts/loads.h"
#include "experts/speculation.h"
#include "experts/stream.h"

namespace edgemoe::bindings {
namespace {

// Format of the gate or none, of up and of down; D and F.
using LayoutTuple =
    std::tuple<std::optional<std::string>, std::string, std::string, std::int64_t, std::int64_t>;

RecordLayout layout_of(const LayoutTuple& given) {
    const auto& [gate, up, down, width, expert_width] = given;
    const Format format_up = format_named(up), format_down = format_named(down);
    const Format format_gate = gate ? format_named(*gate) : format_up;
    check_shape("expert", expert_width, width, format_gate);
    check_shape("expert", expert_width, width, format_up);
    check_shape("expert", width, expert_width, format_down);
    return {gate.has_value(), {format_gate, format_up, format_down}, width, expert_width};
}

// Format, rows, columns, offset and bytes of each matrix of a record.
using PartTuple = std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

std::vector<PartTuple> record_parts(const LayoutTuple& given) {
    std::vector<PartTuple> found;
    for (const RecordPart& part : layout_of(given).parts()) {
        if (part.rows == 0) continue;
        found.emplace_back(traits(part.format).name, part.rows, part.cols, part.offset, part.num_bytes);
    }
    return found;
}

// Activation, biases (E, 2 F + D) or (E, F + D) or none, head or none.
using LayerTuple = std::tuple<std::string, std::optional<Floats2>, std::optional<GivenMatrix>>;

template <typename A>
auto values_of(const A& array) {
    return std::vector(array.data(), array.data() + array.size());
}

void check_signals() {
    const nb::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

void new_stream(ExpertStream* self, UseStatistics& statistics, ExpertCache& cache, Loads& loads,
                const std::vector<LayoutTuple>& layouts, const std::vector<LayerTuple>& layers,
                bool swaps_layers) {
    constexpr const char* kName = "ExpertStream";
    const Catalog& catalog = cache.catalog();
    require_equal(static_cast<std::int64_t>(layouts.size()), catalog.num_experts(), kName,
                  "number of layouts");
    require_equal(static_cast<std::int64_t>(layers.size()), catalog.num_layers(), kName, "number of layers");
    std::vector<RecordLayout> records;
    for (const LayoutTuple& given : layouts) {
        records.push_back(layout_of(given));
        const int expert = static_cast<int>(records.size()) - 1;
        require(records.back().num_bytes() <= cache.record_num_bytes(expert), kName,
                "the record of expert " + std::to_string(expert) + " is too small");
    }
    std::vector<ExpertStream::Layer> heads;
    for (const auto& [activation, biases, head] : layers) {
        heads.push_back({activation_named(activation), biases ? biases->data() : nullptr,
                         head ? &matrix_of(*head) : nullptr});
        const int position = static_cast<int>(heads.size()) - 1;
        if (biases) {
            const int first = catalog.first(position);
            require_equal(size(*biases, 0), catalog.first(position + 1) - first, kName, "number of biases");
            require_equal(size(*biases, 1), records[static_cast<std::size_t>(first)].num_biases(), kName,
                          "length of biases");
        }
        if (!head) continue;
        const Matrix& matrix = matrix_of(*head);
        require_equal(matrix.rows, catalog.first(position + 1) - catalog.first(position), kName,
                      "number of rows of a head");
    }
    new (self) ExpertStream(statistics, cache, loads, std::move(records), std::move(heads),
                            {swaps_layers, check_signals});
}

using Floats = nb::ndarray<nb::numpy, float>;
using Ints = nb::ndarray<nb::numpy, std::int32_t>;
// Both may call back into Python; what they are given and give stands in edgemoe.native.streaming.
using PythonRehearsal =
    nb::typed<nb::callable, std::optional<std::tuple<Floats, Floats, Ints, Floats>>(Floats)>;
using Numbers = nb::typed<nb::list, int>;
using PythonObserver = nb::typed<nb::callable, void(Numbers, Numbers, Numbers)>;

void run(ExpertStream& stream, int position, Floats2 x, Ids ids, Floats2 weights, Floats2 inputs,
         MutableFloats2 out, Speculation* ahead, std::optional<PythonRehearsal> rehearse,
         std::optional<PythonObserver> observe) {
    constexpr const char* kName = "run";
    require_position(stream.catalog(), position, kName);
    const int first = stream.catalog().first(position);
    const std::int64_t num_experts = stream.catalog().first(position + 1) - first;
    const Routed routed = routed_of(x, ids, weights, num_experts, kName);
    require(routed.num_tokens > 0 && routed.top_k > 0, kName, "no tokens");
    const std::int64_t width = stream.width(position), forecast_width = stream.forecast_width(position);
    require(forecast_width == 0 || routed.width + num_experts < forecast_width, kName,
            "the head of the next use has too few columns");
    require_equal(size(inputs, 0), routed.num_tokens, kName, "number of input rows");
    require_equal(size(inputs, 1), width, kName, "input row length");
    require_equal(size(out, 0), routed.num_tokens, kName, "number of output rows");
    require_equal(size(out, 1), width, kName, "output row length");
    require(ahead == nullptr || &ahead->catalog() == &stream.catalog(), kName,
            "reading ahead is of another cache");
    std::function<void(const LayerEvent&)> observer;
    if (observe) {
        observer = [&observe](const LayerEvent& event) {
            const nb::gil_scoped_acquire acquire;
            (*observe)(event.hits, event.misses, event.preloaded);
        };
    }
    Rehearsal rehearsal;
    if (rehearse) {
        require_equal(routed.num_tokens, 1, kName, "number of tokens to rehearse with");
        rehearsal = [&](const float* added) -> std::optional<Rehearsed> {
            const nb::gil_scoped_acquire acquire;
            const nb::object found = (*rehearse)(array_of(std::vector(added, added + width), 1, width));
            if (found.is_none()) return std::nullopt;
            const auto [seen, scores, chosen, given] =
                nb::cast<std::tuple<Floats2, Floats2, Ids, Floats2>>(found);
            return Rehearsed{values_of(seen), values_of(scores), values_of(chosen), values_of(given)};
        };
    }
    const nb::gil_scoped_release release;
    stream.run(position, routed, inputs.data(), out.data(), ahead, rehearsal, observer);
}

}  // namespace

void bind_streaming(nb::module_& m) {
    m.def("experts_working_bytes", &ExpertLayerOutput::working_bytes, nb::arg("num_tokens"), nb::arg("top_k"),
          nb::arg("width"), nb::arg("expert_width"), nb::arg("has_gate"),
          "Most bytes that the chosen experts of a layer take at a time, whatever their formats.");
    m.def("record_parts", &record_parts, nb::arg("layout"));
    nb::class_<ExpertStream>(m, "ExpertStream",
                             R"(Experts streamed through a cache, one layer at a time. Used by one thread.

`layouts` gives for each expert the formats of gate (or None), up and down, the width and the expert width; `layers` for
each position the activation, the experts' biases (E, 2 F + D) or None, and the head that forecasts the next token's
choice, or None. `swaps_layers`: every expert of a layer is read, chosen or not. ValueError where an expert, a
position or a shape does not fit.)")
        .def("__init__", &new_stream, nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(),
             nb::keep_alive<1, 6>(), nb::arg("statistics"), nb::arg("cache"), nb::arg("loads"),
             nb::arg("layouts"), nb::arg("layers"), nb::arg("swaps_layers"))
        .def("run", &run, nb::arg("position"), nb::arg("x").noconvert(), nb::arg("expert_ids").noconvert(),
             nb::arg("weights").noconvert(), nb::arg("inputs").noconvert(), nb::arg("out").noconvert(),
             nb::arg("ahead").none(), nb::arg("rehearse").none(), nb::arg("observe").none(),
             R"(Write the weighted sum of the chosen experts' outputs to `out` (T, D).

x (T, any) is what the router saw, `expert_ids` and `weights` (T, K) what it chose, and `inputs` (T, D), often x, what
the experts get. `rehearse`, an
edgemoe.native.Rehearsal, may be called for one row while storage is waited for, if there is time;
`observe(hits, misses, preloaded)` is told before experts run.

Raises:
    LoadFailed: storage failed repeatedly, or a record is damaged.)")
        .def_prop_ro("num_hits", &ExpertStream::num_hits, "Chosen experts that were there.")
        .def_prop_ro("num_misses", &ExpertStream::num_misses, "Chosen experts that were not.");
}

}  // namespace edgemoe::bindings
