// The compiled module edgemoe._native. Registration only; no logic.
#include "bindings/bindings.h"

NB_MODULE(_native, m) {
    // For a forked child: what holds threads or a ring of its parent's must not be destroyed.
    m.def(
        "keep_forever",
        [](nanobind::object object) {
            object.inc_ref();
            nanobind::set_leak_warnings(false);
        },
        nanobind::arg("object"));
    edgemoe::bindings::bind_kernels(m);
    edgemoe::bindings::bind_ops(m);
    edgemoe::bindings::bind_attention(m);
    edgemoe::bindings::bind_latent(m);
    edgemoe::bindings::bind_mixers(m);
    edgemoe::bindings::bind_mamba2(m);
    edgemoe::bindings::bind_kimi_delta(m);
    edgemoe::bindings::bind_io(m);
    edgemoe::bindings::bind_experts(m);
    edgemoe::bindings::bind_speculation(m);
    edgemoe::bindings::bind_cache(m);
    edgemoe::bindings::bind_remote(m);
    edgemoe::bindings::bind_streaming(m);
}
