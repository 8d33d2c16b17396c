// Eviction and forecasts for Python. Calls are too short to release the GIL for, but for products.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>
#include <nanobind/trampoline.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "bindings/routed.h"
#include "experts/gate.h"
#include "experts/policies.h"
#include "experts/residency.h"
#include "experts/use_statistics.h"

namespace edgemoe::bindings {
namespace {

using Experts = std::vector<int>;

// A policy written in Python.
struct PythonPolicy : EvictionPolicy {
    NB_TRAMPOLINE(EvictionPolicy, 1);

    std::vector<double> worth(const UseStatistics& statistics, const Experts& candidates) const override {
        NB_OVERRIDE_PURE(worth, statistics, candidates);
    }
};

void require_experts(const Catalog& catalog, const Experts& experts, const char* operation) {
    for (const int expert : experts) require_expert(catalog, expert, operation);
}

Experts observe(UseStatistics& statistics, int position, Ids ids) {
    constexpr const char* kName = "observe";
    const Catalog& catalog = statistics.catalog();
    require_position(catalog, position, kName);
    require(ids.shape(0) > 0, kName, "no tokens");
    require_ids(ids, catalog.first(position + 1) - catalog.first(position), kName);
    return statistics.observe(position, ids.data(), static_cast<std::int64_t>(ids.shape(0)),
                              static_cast<std::int64_t>(ids.shape(1)));
}

void expect(UseStatistics& statistics, int position, Floats1 uses) {
    const Catalog& catalog = statistics.catalog();
    require_position(catalog, position, "expect");
    require_equal(static_cast<std::int64_t>(uses.size()),
                  catalog.first(position + 1) - catalog.first(position), "expect", "number of uses");
    statistics.expect(position, uses.data());
}

// What the router saw and chose, checked against the head that multiplies it.
Routed routed_for_head(const Floats2& x, const Ids& ids, const Floats2& weights, std::int64_t num_experts,
                       const PackedMatrix& head, const char* operation) {
    const Routed routed = routed_of(x, ids, weights, num_experts, operation);
    require(routed.width + num_experts < head->cols, operation, "the head has too few columns");
    return routed;
}

void expect_from(UseStatistics& statistics, int position, Floats2 x, Ids ids, Floats2 weights,
                 const PackedMatrix& head) {
    constexpr const char* kName = "expect_from";
    const Catalog& catalog = statistics.catalog();
    require_position(catalog, position, kName);
    const std::int64_t num_experts = catalog.first(position + 1) - catalog.first(position);
    require_equal(head->rows, num_experts, kName, "number of rows of the head");
    require(x.shape(0) > 0, kName, "no tokens");
    const Routed routed = routed_for_head(x, ids, weights, num_experts, head, kName);
    nb::gil_scoped_release release;
    expect_next_use(statistics, position, routed, *head);
}

std::vector<int> layers_until(const UseStatistics& statistics, const Experts& experts) {
    require_experts(statistics.catalog(), experts, "layers_until");
    std::vector<int> layers;
    for (const int expert : experts) layers.push_back(statistics.layers_until(expert));
    return layers;
}

std::vector<double> worth(const EvictionPolicy& policy, const UseStatistics& statistics,
                          const Experts& candidates) {
    require_experts(statistics.catalog(), candidates, "worth");
    return policy.worth(statistics, candidates);
}

template <typename T, typename Value>
nb::ndarray<nb::numpy, T, nb::ndim<1>> view(std::vector<Value>& values) {
    static_assert(sizeof(T) == sizeof(Value));
    return {values.data(), {values.size()}, nb::handle()};
}

}  // namespace

void bind_experts(nb::module_& m) {
    constexpr auto kView = nb::rv_policy::reference_internal;
    nb::class_<UseStatistics>(m, "UseStatistics",
                              R"(How often and when each expert was used, and which layer is running.

Experts are numbered by layer, then by expert; a layer's position is its place among those that have experts, and
`positions` has each expert's. Layers below `first_step` run for prompts alone. After `half_life_tokens` a use
counts half. Used by one thread; ValueError where an expert, a position or a shape does not fit.)")
        .def(
            "__init__",
            [](UseStatistics* self, std::vector<std::int64_t> num_bytes, Experts positions, int first_step,
               double half_life_tokens) {
                new (self)
                    UseStatistics({std::move(num_bytes), std::move(positions), first_step}, half_life_tokens);
            },
            nb::arg("num_bytes"), nb::arg("positions"), nb::arg("first_step"), nb::arg("half_life_tokens"))
        .def("observe", &observe, nb::arg("position"), nb::arg("expert_ids").noconvert(),
             "The layer runs for T tokens, which chose `expert_ids` (T, K) of its own, 0 to E - 1. Returns "
             "the numbers of\n"
             "those, ascending, each once.")
        .def("expect", &expect, nb::arg("position"), nb::arg("uses").noconvert(),
             "A forecast (E,) of which the next token will use, a probability for each.")
        .def("expect_from", &expect_from, nb::arg("position"), nb::arg("x").noconvert(),
             nb::arg("expert_ids").noconvert(), nb::arg("weights").noconvert(), nb::arg("head"),
             "`expect` by a head (E, C), from what the layer's router saw and chose for the last token of x "
             "(T, D); its\n"
             "columns are those of GatePredictor.")
        .def("layers_until", &layers_until, nb::arg("experts"), "Layers that run until each one's runs next.")
        .def("is_over", &UseStatistics::is_over, nb::arg("position"),
             "Whether the layer has run for this prompt and will not for this answer.")
        .def("num_over", &UseStatistics::num_over, "Experts of such layers: the first ones.")
        .def_prop_ro("clock", &UseStatistics::clock, "Layers run so far.")
        .def_prop_ro(
            "frequency", [](UseStatistics& s) { return view<double>(s.frequency()); }, kView,
            "(N,): uses per token, decayed.")
        .def_prop_ro(
            "expected", [](UseStatistics& s) { return view<double>(s.expected()); }, kView,
            "(N,): uses by the next token, as forecast.");
    nb::class_<EvictionPolicy, PythonPolicy>(m, "EvictionPolicy",
                                             "What keeping each expert is worth. Derive from it to write "
                                             "one; `depends_on_layer`: the running layer counts.")
        .def(nb::init<bool>(), nb::arg("depends_on_layer"))
        .def("worth", &worth, nb::arg("statistics"), nb::arg("candidates"),
             "One value for each candidate; the lowest leaves first.");
    m.def("make_policy", &make_policy, nb::arg("name"),
          "One of those that are built in. ValueError: there is none of this name.");
    nb::class_<Residency>(
        m, "Residency",
        R"(The books of a cache: which experts are in memory, in bytes, and who leaves for whom.

At most `capacity_bytes` of experts, loading or there. A layer keeps `floor_share` of an even share against other
layers. Used by one thread; ValueError where an expert does not fit.)")
        .def(nb::init<const UseStatistics&, const EvictionPolicy&, std::int64_t, double>(),
             nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::arg("statistics"), nb::arg("policy"),
             nb::arg("capacity_bytes"), nb::arg("floor_share"))
        .def(
            "has_room",
            [](const Residency& r, int expert) {
                require_expert(r.catalog(), expert, "has_room");
                return r.has_room(expert);
            },
            nb::arg("expert"), "Whether an absent expert would come without any leaving.")
        .def(
            "take",
            [](Residency& r, int expert, bool is_demand) {
                require_expert(r.catalog(), expert, "take");
                return r.take(expert, is_demand);
            },
            nb::arg("expert"), nb::arg("is_demand"),
            "Make room for an absent expert: those that left for it, or None where too little may.")
        .def(
            "drop",
            [](Residency& r, int expert) {
                require_expert(r.catalog(), expert, "drop");
                r.drop(expert);
            },
            nb::arg("expert"), "An expert that was loading, or is there, gives its bytes back.")
        .def(
            "admit",
            [](Residency& r, int expert) {
                require_expert(r.catalog(), expert, "admit");
                r.admit(expert);
            },
            nb::arg("expert"), "An expert with room is there.")
        .def(
            "missing",
            [](const Residency& r, const Experts& experts) {
                require_experts(r.catalog(), experts, "missing");
                return r.missing(experts);
            },
            nb::arg("experts"), "Those that are not there.")
        .def(
            "pin",
            [](Residency& r, const Experts& experts) {
                require_experts(r.catalog(), experts, "pin");
                r.pin(experts, true);
            },
            nb::arg("experts"), "They are in use and never leave.")
        .def(
            "unpin",
            [](Residency& r, const Experts& experts) {
                require_experts(r.catalog(), experts, "unpin");
                r.pin(experts, false);
            },
            nb::arg("experts"), "They are no longer in use.")
        .def("unpin_all", &Residency::unpin_all, "Nothing is in use any more.")
        .def(
            "reserve",
            [](Residency& r, const Experts& experts, bool is_reserved) {
                require_experts(r.catalog(), experts, "reserve");
                r.reserve(experts, is_reserved);
            },
            nb::arg("experts"), nb::arg("is_reserved"),
            "Whether they are expected soon: such experts leave only for one that is needed now.")
        .def_prop_ro("capacity_bytes", &Residency::capacity_bytes, "Bytes of experts that may be there.")
        .def_prop_ro("used_bytes", &Residency::used_bytes, "Bytes of those that are loading or there.")
        .def_prop_ro(
            "is_resident", [](Residency& r) { return view<bool>(r.is_resident()); }, kView,
            "(N,): whether each is there.");
}

}  // namespace edgemoe::bindings
