// One registration function per part of the core; module.cpp calls them all. Token mixers register
// themselves, see mixer_binding.h.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

namespace edgemoe::bindings {

void bind_kernels(nanobind::module_& m);
void bind_ops(nanobind::module_& m);
void bind_attention(nanobind::module_& m);
void bind_experts(nanobind::module_& m);
void bind_io(nanobind::module_& m);
void bind_cache(nanobind::module_& m);
void bind_drafts(nanobind::module_& m);
void bind_platform(nanobind::module_& m);
void bind_remote(nanobind::module_& m);
void bind_speculation(nanobind::module_& m);
void bind_streaming(nanobind::module_& m);
void bind_text_pages(nanobind::module_& m);

// Throws OSError(error, text, path); an empty path is left out.
[[noreturn]] void raise_os_error(int error, const std::string& text, const std::string& path);

}  // namespace edgemoe::bindings
