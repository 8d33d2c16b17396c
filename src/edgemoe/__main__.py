"""Where the command ``edgemoe`` and ``python -m edgemoe`` begin."""

from __future__ import annotations

import sys

from edgemoe._begin import end_at_once_on_ctrl_c

end_at_once_on_ctrl_c()


def start() -> int:
    """Run the command line of this process; returns the exit code."""
    from edgemoe.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
