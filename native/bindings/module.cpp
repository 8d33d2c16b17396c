// The compiled module edgemoe._native. Registration only; no logic.
#include "bindings/bindings.h"

NB_MODULE(_native, m) {
    edgemoe::bindings::bind_kernels(m);
    edgemoe::bindings::bind_ops(m);
    edgemoe::bindings::bind_attention(m);
    edgemoe::bindings::bind_io(m);
    edgemoe::bindings::bind_experts(m);
    edgemoe::bindings::bind_speculation(m);
    edgemoe::bindings::bind_cache(m);
    edgemoe::bindings::bind_streaming(m);
}
