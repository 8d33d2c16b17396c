// How a token mixer's class gets into the module: its file says so, and nothing else names it.
#pragma once

#include <nanobind/nanobind.h>

#include <map>
#include <string>

namespace edgemoe::bindings {

inline constexpr const char* kKeptDoc = "Weights are kept, not copied. ValueError where shapes do not fit.";

inline constexpr const char* kWorkingOfKeysDoc =
    "Most bytes that `run` takes at a time for so many rows that see up to `num_keys`, whatever the formats.";

// One at namespace scope in the file of a binding: `const MixerBinding kBinding("Name", bind);`.
class MixerBinding {
  public:
    using Bind = void (*)(nanobind::module_& mixers, const char* name);

    MixerBinding(const char* name, Bind bind) { all().emplace(name, bind); }

    // In the order of their names: files are initialised in any order.
    static void bind_all(nanobind::module_& mixers) {
        for (const auto& [name, bind] : all()) bind(mixers, name.c_str());
    }

  private:
    static std::map<std::string, Bind>& all() {
        static std::map<std::string, Bind> bindings;
        return bindings;
    }
};

}  // namespace edgemoe::bindings
