"""Where the command ``edgemoe`` and ``python -m edgemoe`` begin."""

from __future__ import annotations

import signal
import sys

# Until `main` is ready to say so in a line, Ctrl-C ends the process at once, as it ends programs that handle
# nothing; Python would print a traceback of the import that it interrupts. Where it is ignored, it stays so.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start() -> int:
    """Run the command line of this process; returns the exit code."""
    from edgemoe.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
