// Reading ahead for Python. Predictors, the reads under way and the clock may be written in Python.
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/bound_router.h"
#include "bindings/packed_matrix.h"
#include "bindings/routed.h"
#include "experts/layer_pace.h"
#include "experts/predictors.h"
#include "experts/reads.h"
#include "experts/speculation.h"

namespace edgemoe::bindings {
namespace {

// A predictor written in Python.
class PythonPredictor : public Predictor {
  public:
    explicit PythonPredictor(nb::object predictor) : predictor_(std::move(predictor)) {}

    std::vector<Forecast> forecast(int position, const Routed& r, int lookahead) override {
        const nb::gil_scoped_acquire acquire;
        const nb::object found = predictor_.attr("forecast")(
            position, view_of(r.x, r.num_tokens, r.width), view_of(r.ids, r.num_tokens, r.top_k),
            view_of(r.weights, r.num_tokens, r.top_k), lookahead);
        std::vector<Forecast> forecasts;
        for (const nb::handle one : found) {
            const auto [target, scores] = nb::cast<std::tuple<int, Floats2>>(one);
            forecasts.push_back(
                {target, size(scores, 0), size(scores, 1), {scores.data(), scores.data() + scores.size()}});
        }
        return forecasts;
    }

  private:
    nb::object predictor_;
};

// Reads that are kept account of in Python.
class PythonReads : public Reads {
  public:
    explicit PythonReads(nb::object reads) : reads_(std::move(reads)) {}

    bool start(int expert, int priority) override { return call<bool>("start", expert, priority); }
    bool cancel(int expert) override { return call<bool>("cancel", expert); }
    bool contains(int expert) const override { return call<bool>("__contains__", expert); }
    std::int64_t pending_bytes() const override { return get<std::int64_t>("pending_bytes"); }
    std::int64_t demanded_bytes() const override { return get<std::int64_t>("demanded_bytes"); }
    double waited_s() const override { return get<double>("waited_s"); }

  private:
    template <typename Result, typename... Arguments>
    Result call(const char* method, Arguments... arguments) const {
        const nb::gil_scoped_acquire acquire;
        return nb::cast<Result>(reads_.attr(method)(arguments...));
    }
    template <typename Result>
    Result get(const char* name) const {
        const nb::gil_scoped_acquire acquire;
        return nb::cast<Result>(reads_.attr(name));
    }

    nb::object reads_;
};

// A head's matrix, and (position, E) of its targets.
using HeadTuple = std::tuple<const PackedMatrix*, std::vector<std::pair<int, std::int64_t>>>;

void new_gate(GatePredictor* self, const std::map<int, HeadTuple>& heads,
              std::vector<std::int64_t> num_experts, const std::map<int, const BoundRouter*>& routers) {
    std::map<int, GateHead> all;
    for (const auto& [position, head] : heads) {
        const auto& [matrix, targets] = head;
        require(matrix != nullptr, "GatePredictor", "a head has no matrix");
        all.emplace(position, GateHead{**matrix, targets});
    }
    std::map<int, const Router*> rules;
    for (const auto& [position, router] : routers) {
        require(router != nullptr, "GatePredictor", "a router is missing");
        rules.emplace(position, &**router);
    }
    new (self) GatePredictor(std::move(all), std::move(num_experts), std::move(rules));
}

// single (E1, E), older (E2, E), pair (E2, E1, E) or None.
using TableTuple = std::tuple<Floats2, Floats2, std::optional<Floats3>>;

TransitionTable table_of(const TableTuple& given) {
    constexpr const char* kName = "TablePredictor";
    const auto& [single, older, pair] = given;
    const TransitionTable table = {size(single, 1), size(single, 0), size(older, 0),
                                   single.data(),   older.data(),    pair ? pair->data() : nullptr};
    require_equal(size(older, 1), table.num_experts, kName, "row length of the older table");
    if (pair) {
        require_equal(size(*pair, 0), table.num_before, kName, "first length of the table of pairs");
        require_equal(size(*pair, 1), table.num_previous, kName, "second length of the table of pairs");
        require_equal(size(*pair, 2), table.num_experts, kName, "row length of the table of pairs");
    }
    return table;
}

// Keeps the arrays of its tables.
class ArrayTables : public TablePredictor {
  public:
    ArrayTables(std::map<int, TableTuple> arrays, const std::vector<std::int64_t>& num_experts)
        : TablePredictor(tables_of(arrays), num_experts), arrays_(std::move(arrays)) {}

  private:
    static std::map<int, TransitionTable> tables_of(const std::map<int, TableTuple>& arrays) {
        std::map<int, TransitionTable> tables;
        for (const auto& [position, given] : arrays) tables.emplace(position, table_of(given));
        return tables;
    }

    std::map<int, TableTuple> arrays_;
};

using ScoresTuple = std::tuple<int, nb::ndarray<nb::numpy, float, nb::ndim<2>>>;

std::vector<ScoresTuple> forecast(Predictor& predictor, int position, Floats2 x, Ids ids, Floats2 weights,
                                  int lookahead) {
    constexpr const char* kName = "forecast";
    require(x.shape(0) > 0 && ids.shape(1) > 0, kName, "no tokens");
    const Routed routed = routed_of(x, ids, weights, std::numeric_limits<std::int32_t>::max(), kName);
    std::vector<ScoresTuple> found;
    for (Forecast& one : predictor.forecast(position, routed, lookahead)) {
        found.emplace_back(one.position, array_of(std::move(one.scores), one.num_tokens, one.num_experts));
    }
    return found;
}

void bind_predictors(nb::module_& m) {
    nb::class_<Predictor>(m, "Predictor",
                          "Forecasts of what the routers of the next layers will choose. Used by one thread.")
        .def("forecast", &forecast, nb::arg("position"), nb::arg("x").noconvert(),
             nb::arg("expert_ids").noconvert(), nb::arg("weights").noconvert(), nb::arg("lookahead"),
             "(position, scores (T, E)) of the next `lookahead` layers or fewer, given what a layer's router "
             "saw (T, D) and\n"
             "chose, ids and weights (T, K).");
    nb::class_<PythonPredictor, Predictor>(m, "PythonPredictor",
                                           "A predictor written in Python, with Predictor's method.")
        .def(nb::init<nb::object>(), nb::arg("predictor"));
    nb::class_<GatePredictor, Predictor>(
        m, "GatePredictor", R"(The next layers' routers, or what was fitted, on the present state.

`heads` gives by position a matrix of C columns and its targets, (position, E) in the order of its rows. A token's row of
C columns is its state, the weights of the chosen by expert, and 1; what is left of C multiplies nothing. `routers` make
choice scores of the products, by the position that is forecast.)")
        .def("__init__", &new_gate, nb::keep_alive<1, 2>(), nb::keep_alive<1, 4>(), nb::arg("heads"),
             nb::arg("num_experts"), nb::arg("routers"));
    nb::class_<ArrayTables, Predictor>(m, "TablePredictor", R"(What followed what in calibration text.

`tables` gives by the position that they forecast probabilities given one expert of the layer before (E1, E), of the one
before that (E2, E), and of both (E2, E1, E) or None.)")
        .def(nb::init<std::map<int, TableTuple>, std::vector<std::int64_t>>(), nb::arg("tables"),
             nb::arg("num_experts"));
    nb::class_<HybridPredictor, Predictor>(m, "HybridPredictor",
                                           "Gate and table together; `table_weights` by position.")
        .def(
            "__init__",
            [](HybridPredictor* self, Predictor& gate, ArrayTables& table,
               std::map<int, float> table_weights) {
                new (self) HybridPredictor(gate, table, std::move(table_weights));
            },
            nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::arg("gate"), nb::arg("table"),
            nb::arg("table_weights"));
    nb::class_<StepPredictor, Predictor>(m, "StepPredictor",
                                         "A predictor of the layers from `first_step` on alone.")
        .def(nb::init<Predictor&, int>(), nb::keep_alive<1, 2>(), nb::arg("predictor"),
             nb::arg("first_step"));
}

}  // namespace

void bind_speculation(nb::module_& m) {
    bind_predictors(m);
    nb::class_<Reads>(m, "Reads", "What speculation asks of the reads under way.");
    nb::class_<PythonReads, Reads>(
        m, "PythonReads", "Reads kept account of in Python, with the methods of edgemoe.native.Reads.")
        .def(nb::init<nb::object>(), nb::arg("reads"));
    nb::class_<LayerPace>(m, "LayerPace",
                          "How fast storage delivers, how long a read keeps the processor busy, and how long "
                          "a layer takes by a\n"
                          "clock in seconds; without one by the machine's.")
        .def(nb::init<double, double, double, std::function<double()>>(), nb::arg("bytes_per_s"),
             nb::arg("latency_s"), nb::arg("handling_s"), nb::arg("clock").none() = nb::none());
    m.attr("MAX_REHEARSED") = Speculation::kMaxRehearsed;
    nb::class_<Speculation>(m, "Speculation",
                            R"(Starts reads of forecast experts where they pay. Used by one thread.

Experts are numbered by layer, then by expert. For the forecasts up to `max_rehearsed` layers are rehearsed, MAX_REHEARSED
at most. ValueError where an expert, a position or a shape does not fit.)")
        .def(
            "__init__",
            [](Speculation* self, Residency& residency, Reads& reads, Predictor& predictor, LayerPace& pace,
               int top_k, std::vector<std::int64_t> record_sizes, int max_rehearsed) {
                new (self) Speculation(residency, reads, predictor, pace,
                                       {top_k, std::move(record_sizes), max_rehearsed});
            },
            nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>(),
            nb::arg("residency"), nb::arg("reads"), nb::arg("predictor"), nb::arg("pace"), nb::arg("top_k"),
            nb::arg("record_sizes"), nb::arg("max_rehearsed"))
        .def(
            "settle",
            [](Speculation& s, int position, std::int64_t num_tokens, const std::vector<int>& chosen) {
                require_position(s.catalog(), position, "settle");
                return s.settle(position, num_tokens, chosen);
            },
            nb::arg("position"), nb::arg("num_tokens"), nb::arg("chosen"),
            "The router chose experts of these numbers, ascending: drops what was read ahead for others, and "
            "returns what\n"
            "was rightly.")
        .def(
            "start",
            [](Speculation& s, int position, Floats2 x, Ids ids, Floats2 weights) {
                require_position(s.catalog(), position, "start");
                require(x.shape(0) > 0, "start", "no tokens");
                const int first = s.catalog().first(position);
                s.start(position,
                        routed_of(x, ids, weights, s.catalog().first(position + 1) - first, "start"));
            },
            nb::arg("position"), nb::arg("x").noconvert(), nb::arg("expert_ids").noconvert(),
            nb::arg("weights").noconvert(), "Forecast the next layers and queue the reads that pay.")
        .def_prop_ro("is_on", &Speculation::is_on,
                     "False while single tokens were faster without, and while they are timed without.")
        .def(
            "records",
            [](const Speculation& s, int distance) {
                require(distance >= 0 && distance <= Speculation::kMaxRehearsed, "records",
                        "no forecasts from so far");
                std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>> all;
                for (const auto& record : s.records(distance)) {
                    all.emplace_back(record.num_forecasts, record.num_chosen);
                }
                return all;
            },
            nb::arg("distance"),
            "How forecasts for single tokens held, of the predictor (0) or of rehearsals by the layer so "
            "many layers before:\n"
            "by position how many there were, and how many of the experts ranked r were chosen.")
        .def_prop_ro("num_reads", &Speculation::num_reads, "Reads started so far.")
        .def_prop_ro("wasted_bytes", &Speculation::wasted_bytes,
                     "Bytes read so far for a layer that chose otherwise.");
}

}  // namespace edgemoe::bindings
