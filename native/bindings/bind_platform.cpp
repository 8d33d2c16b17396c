// What systems do differently, as far as Python needs it.
#include <unistd.h>

#include <cstdint>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "platform/memory.h"
#include "platform/processor.h"

namespace edgemoe::bindings {
namespace {

void give_back_pages(MutableBytes pages) {
    const auto address = reinterpret_cast<std::uintptr_t>(pages.data());
    require((address | pages.size()) % static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE)) == 0, "give_back",
            "not whole pages");
    platform::give_back(pages.data(), pages.size());
}

}  // namespace

void bind_platform(nb::module_& m) {
    m.def("usable_processors", &platform::usable_processors, "Logical processors that this process may use.");
    m.def("free_memory_bytes", &platform::free_memory_bytes,
          "Memory that nobody uses, as far as the system says.");
    m.def(
        "avoid_huge_pages",
        [](MutableBytes memory) { platform::avoid_huge_pages(memory.data(), memory.size()); },
        nb::arg("memory").noconvert(), "Advise the system to take memory page by page as it is written.");
    m.def(
        "give_back", &give_back_pages, nb::arg("pages").noconvert(),
        "Give whole pages of private memory without a file back to the system; zeros are there afterwards.");
}

}  // namespace edgemoe::bindings
