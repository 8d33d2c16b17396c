// Memory of texts in pages, for Python.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "core/text_pages.h"

namespace edgemoe::bindings {
namespace {

using Share = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
using Use = std::tuple<std::int64_t, std::vector<Share>, std::int64_t>;

Use as_tuple(const PageUse& use) {
    std::vector<Share> shares;
    for (const PageShare& share : use.shares)
        shares.emplace_back(share.run, share.start_bytes, share.end_bytes);
    return {use.run, std::move(shares), use.kept_bytes};
}

void require_tokens(std::int64_t num_tokens, const char* operation) {
    require(num_tokens >= 0, operation, "fewer tokens than none");
}

}  // namespace

void bind_text_pages(nb::module_& m) {
    constexpr auto kView = nb::rv_policy::reference_internal;
    nb::class_<PageFile>(m, "PageFile",
                         R"(The file in memory that the pages of texts lie in: texts of one can share pages.

It has no name and is gone with the last text. Where the system has no such file, texts copy. Thread-safe.)")
        .def(nb::init<>())
        .def_prop_ro("is_there", &PageFile::is_there, "Whether the system has such files.")
        .def_prop_ro("resident_bytes", &PageFile::resident_bytes, "Bytes of its pages that are in memory.");
    nb::class_<TextPages>(m, "TextPages",
                          R"(The memory of one text, whose beginning other texts of the file may share.

Arrays (heads, slots, bytes) stay in one piece each. A *use* is whose pages a text has: (run, shares, kept_bytes), the
number of the run of pages of its own, -1 for one that is yet to be; for every run of another text that it has a part
of, (run, start_bytes, end_bytes) by the whole pages that the text has filled there; and what the system keeps of that.
Used by one thread at a time; texts that share may be used by several.)")
        .def(nb::init<std::shared_ptr<PageFile>>(), nb::arg("file"), "A text without arrays.")
        .def_static(
            "slots_of_pages",
            [](std::int64_t slot_bytes) {
                require(slot_bytes > 0, "slots_of_pages", "slots of no bytes");
                return TextPages::slots_of_pages(slot_bytes);
            },
            nb::arg("slot_bytes"), "The fewest slots of so many bytes that fill whole pages.")
        .def(
            "add",
            [](TextPages& pages, std::int64_t num_heads, std::int64_t num_slots, std::int64_t slot_bytes) {
                std::uint8_t* data = pages.add(num_heads, num_slots, slot_bytes);
                const auto num_bytes = static_cast<std::size_t>(num_heads * num_slots * slot_bytes);
                return nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>(data, {num_bytes}, nb::handle());
            },
            nb::arg("num_heads"), nb::arg("num_slots"), nb::arg("slot_bytes"), kView,
            "A further array, of zeros, as bytes. Its slots fill whole pages, else ValueError; MemoryError "
            "where "
            "there are no addresses for it.")
        .def(
            "begin_as",
            [](TextPages& pages, const TextPages& other, std::int64_t num_tokens) {
                require_tokens(num_tokens, "begin_as");
                pages.begin_as(other, num_tokens);
            },
            nb::arg("other"), nb::arg("num_tokens"), nb::call_guard<nb::gil_scoped_release>(),
            "Be what another text with the same arrays is in its first tokens: share the pages that they "
            "fill, "
            "copy the rest.\nValueError where the arrays differ.")
        .def(
            "take_back",
            [](TextPages& pages, std::int64_t num_tokens) {
                require_tokens(num_tokens, "take_back");
                pages.take_back(num_tokens);
            },
            nb::arg("num_tokens"), nb::call_guard<nb::gil_scoped_release>(),
            "Tokens from here on will be written again: pages that others have are no longer this text's.")
        .def(
            "trim",
            [](TextPages& pages, std::int64_t num_tokens) {
                require_tokens(num_tokens, "trim");
                pages.trim(num_tokens);
            },
            nb::arg("num_tokens"), nb::call_guard<nb::gil_scoped_release>(),
            "Give back the memory of tokens from here on, none of which the text has; zeros are there then.")
        .def(
            "use", [](const TextPages& pages) { return as_tuple(pages.use()); }, "Whose pages it has.")
        .def(
            "use_if_begun",
            [](const TextPages& pages, std::int64_t num_tokens) {
                require_tokens(num_tokens, "use_if_begun");
                return as_tuple(pages.use_if_begun(num_tokens));
            },
            nb::arg("num_tokens"), "The use of a text that begins as this one, in so many tokens.")
        .def(
            "use_if_taken_back",
            [](const TextPages& pages, std::int64_t num_tokens) {
                require_tokens(num_tokens, "use_if_taken_back");
                return as_tuple(pages.use_if_taken_back(num_tokens));
            },
            nb::arg("num_tokens"), "Its use after `take_back`.");
    m.def("mapped_again_bytes", &TextPages::mapped_again_bytes,
          "Bytes of pages that texts of this process have of others: they are in memory once, but the system "
          "counts them\nfor each text that has them.");
}

}  // namespace edgemoe::bindings
