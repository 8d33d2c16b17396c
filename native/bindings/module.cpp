// The compiled module edgemoe._native. Registration only; no logic.
#include <nanobind/stl/string.h>

#include "bindings/bindings.h"
#include "bindings/mixer_binding.h"
#include "core/lost_pages.h"

namespace {

constexpr const char* kMixersDoc =
    R"(Token mixers: what a layer does before its experts, from the residual stream
back into it.

Letters: T rows of a step, D width, C channels of a convolution, K its taps. Arrays are C-contiguous float32,
matrices packed (`Matrix`). The result for a row never depends on the other texts of the step, nor on how its own is
cut; rows of one text run one after the other. What each computes stands in NumPy in edgemoe.native.mixer_reference.)";

}  // namespace

NB_MODULE(_native, m) {
    // For a forked child: what holds threads or a ring of its parent's must not be destroyed.
    m.def(
        "keep_forever",
        [](nanobind::object object) {
            object.inc_ref();
            nanobind::set_leak_warnings(false);
        },
        nanobind::arg("object"),
        "For a forked child: what holds threads or a ring of its parent's is never destroyed.");
    m.def("end_with_line_on_lost_pages", &edgemoe::end_with_line_on_lost_pages, nanobind::arg("line"),
          "End the process with this line and exit code 2, not by a signal, when a mapped file becomes "
          "shorter.");
    edgemoe::bindings::bind_kernels(m);
    edgemoe::bindings::bind_ops(m);
    edgemoe::bindings::bind_attention(m);
    nanobind::module_ mixers = m.def_submodule("mixers", kMixersDoc);
    edgemoe::bindings::MixerBinding::bind_all(mixers);
    edgemoe::bindings::bind_io(m);
    edgemoe::bindings::bind_experts(m);
    edgemoe::bindings::bind_speculation(m);
    edgemoe::bindings::bind_cache(m);
    edgemoe::bindings::bind_remote(m);
    edgemoe::bindings::bind_streaming(m);
    edgemoe::bindings::bind_drafts(m);
    edgemoe::bindings::bind_text_pages(m);
    edgemoe::bindings::bind_platform(m);
}
