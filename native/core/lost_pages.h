// Files that are mapped into memory and become shorter while they are read.
#pragma once

#include <string>

namespace edgemoe {

// From here on the process ends with exit code 2 and this line on stderr when a mapped file has lost a page
// that is read, instead of by a signal without a word. Changes nothing where somebody handles that signal
// already.
void end_with_line_on_lost_pages(const std::string& line);

}  // namespace edgemoe
