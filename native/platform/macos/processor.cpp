#include "platform/processor.h"

#include <sys/sysctl.h>

#include <algorithm>
#include <cstddef>
#include <thread>

namespace edgemoe::platform {
namespace {

// Names that a system does not know stand for features that its processor lacks.
bool has_feature(const char* name) {
    int value = 0;
    std::size_t size = sizeof value;
    return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

}  // namespace

// A thread cannot be kept to some processors, so they are all of the machine's.
int usable_processors() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

bool has_dot_product() { return has_feature("hw.optional.arm.FEAT_DotProd"); }

bool has_int8_products() { return has_feature("hw.optional.arm.FEAT_I8MM"); }

bool is_granted_tiles() { return false; }

}  // namespace edgemoe::platform
