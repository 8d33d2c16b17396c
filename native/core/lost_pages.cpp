#include "core/lost_pages.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace edgemoe {
namespace {

constexpr int kRefused = 2;  // as the command line has it
// What a handler of signals may touch.
std::array<char, 512> shown_line;
std::size_t line_length = 0;

void end(int) {
    // Nothing is to be done about a stderr that is closed.
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, shown_line.data(), line_length);
    _exit(kRefused);
}

}  // namespace

void end_with_line_on_lost_pages(const std::string& line) {
    struct sigaction current {};
    if (sigaction(SIGBUS, nullptr, &current) != 0 || current.sa_handler != SIG_DFL) return;
    line_length = std::min(line.size(), shown_line.size());
    std::copy_n(line.begin(), line_length, shown_line.begin());
    struct sigaction handler {};
    handler.sa_handler = end;
    sigaction(SIGBUS, &handler, nullptr);
}

}  // namespace edgemoe
