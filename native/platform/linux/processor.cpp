#include "platform/processor.h"

#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

namespace edgemoe::platform {
namespace {

// Bits of 64-bit ARM's AT_HWCAP and AT_HWCAP2; headers before Linux 5.10 lack the latter.
constexpr unsigned long kDotProduct = 1ul << 20, kInt8Products = 1ul << 13;

#ifdef __aarch64__
constexpr bool kIsArm = true;
#else
constexpr bool kIsArm = false;
#endif

}  // namespace

int usable_processors() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

bool has_dot_product() { return kIsArm && (::getauxval(AT_HWCAP) & kDotProduct) != 0; }

bool has_int8_products() { return kIsArm && (::getauxval(AT_HWCAP2) & kInt8Products) != 0; }

bool is_granted_tiles() {
    // Linux gives a process the 8 KiB of state that tiles have in each thread only if it asks; since 5.16,
    // and not where a thread has too small a stack for signals.
#ifdef SYS_arch_prctl
    constexpr long kRequestState = 0x1023, kTileData = 18;
    return ::syscall(SYS_arch_prctl, kRequestState, kTileData) == 0;
#else
    return false;
#endif
}

}  // namespace edgemoe::platform
