// The index of a text's own past for Python.

#include "bindings/bindings.h"
#include "core/suffix_index.h"

namespace nb = nanobind;

namespace edgemoe::bindings {
namespace {

// Brings the index up to a text: its tokens, of which the first are known, and one that follows them.
SuffixIndex::Match look(SuffixIndex& index, const nb::list& token_ids, std::int32_t token_id) {
    for (std::size_t i = static_cast<std::size_t>(index.size()); i < token_ids.size(); ++i) {
        index.push(nb::cast<std::int32_t>(token_ids[i]));
    }
    index.push(token_id);
    return index.find();
}

}  // namespace

void bind_drafts(nb::module_& m) {
    m.attr("FEWEST_AGREEING") = SuffixIndex::kFewest;
    m.attr("MOST_AGREEING") = SuffixIndex::kLongest;
    m.attr("MOST_PLACES") = SuffixIndex::kMostPlaces;
    nb::class_<SuffixIndex>(m, "SuffixIndex", "Where the end of a text stood before in it.")
        .def(nb::init<>())
        .def("__len__", &SuffixIndex::size)
        .def(
            "look",
            [](SuffixIndex& self, const nb::list& token_ids, std::int32_t token_id) -> nb::object {
                const SuffixIndex::Match match = look(self, token_ids, token_id);
                if (match.length == 0) return nb::none();
                return nb::make_tuple(match.end, match.length);
            },
            nb::arg("token_ids"), nb::arg("token_id"),
            nb::sig("def look(self, token_ids: list[int], token_id: int) -> tuple[int, int] | None"),
            "Take in a text and the token that follows it, of which the first tokens are known: the place "
            "after which it\n"
            "goes on as at its end, and how many tokens agree; None where too few do.")
        .def(
            "after",
            [](const SuffixIndex& self, std::int32_t end, std::int64_t count) {
                if (end < 0 || end >= self.size()) throw nb::index_error("no place before the text's end");
                nb::list found;
                for (std::int64_t i = 0; i < count; ++i) found.append(self.after({end, 0}, i));
                return found;
            },
            nb::arg("end"), nb::arg("count"), nb::sig("def after(self, end: int, count: int) -> list[int]"),
            "The `count` tokens from the place `end` on. IndexError: there is no such place.");
}

}  // namespace edgemoe::bindings
