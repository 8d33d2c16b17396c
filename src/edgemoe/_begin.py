"""Ctrl-C before the command is ready to say so in a line: it ends the process at once.

So it ends programs that handle nothing; Python would print a traceback of the import that it interrupts.
Imported before all else, and so without more imports than the interpreter has made already.
"""

import sys

_signal = __import__("_signal")  # the module around it imports for longer than all of this package does


def end_at_once_on_ctrl_c() -> None:
    """From here on; where Ctrl-C is ignored, or handled by somebody, it stays so."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def _is_command() -> bool:
    """Whether this process is the command, and no other program that uses the package."""
    given = sys.orig_argv
    program = given[given.index("-m") + 1 :][:1] if "-m" in given else sys.argv[:1]
    return [name.rpartition("/")[2] for name in program] == ["edgemoe"]


if _is_command():
    end_at_once_on_ctrl_c()
