"""Entry of the command ``edgemoe``: runs one command and turns every failure into one line and an exit code.

Exit codes: 0 done; 2 wrong request, model, store or budget; 130 stopped by Ctrl-C, 143 by SIGTERM; 1 a defect
of ours.
Imports wait until :func:`main` runs, so that Ctrl-C is already handled while they happen.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

EXIT_DEFECT = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_TERMINATED = 143  # 128 + SIGTERM


class _Terminated(BaseException):
    """Somebody asked the process to end. Unlike Ctrl-C, which ends an answer of ``chat``, nothing goes on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``edgemoe`` with these arguments (default: those of the process); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    shows_traceback = "--debug" in arguments or bool(os.environ.get("EDGEMOE_DEBUG"))
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from edgemoe.cli.app import run_app

        code = run_app([argument for argument in arguments if argument != "--debug"])
        # The command-line library turns Ctrl-C into this code without a word.
        return _say("interrupted", code) if code == EXIT_INTERRUPTED else code
    except (BrokenPipeError, SystemExit):  # the library makes the first into the second
        return _drop_stdout()
    except _Terminated:
        return _say("terminated", EXIT_TERMINATED)
    except (Exception, KeyboardInterrupt) as error:
        if shows_traceback:
            traceback.print_exc()
        return _report(error)


def _terminate(*_: object) -> NoReturn:
    """What is half done is tidied up on the way out."""
    raise _Terminated


def _report(error: BaseException) -> int:
    from edgemoe.cli.app import UsageError, describe_usage_error, is_abort
    from edgemoe.errors import EdgeMoEError

    if isinstance(error, KeyboardInterrupt) or is_abort(error):
        return _say("interrupted", EXIT_INTERRUPTED)
    if isinstance(error, UsageError):
        return _say(describe_usage_error(error), EXIT_REFUSED)
    if isinstance(error, EdgeMoEError | OSError):
        return _say(str(error) or type(error).__name__, EXIT_REFUSED)
    if isinstance(error, MemoryError):
        return _say("out of memory; ask for a smaller --memory or --context", EXIT_REFUSED)
    text = f"defect: {type(error).__name__}: {error}; repeat with --debug and report what it prints"
    return _say(text, EXIT_DEFECT)


def _say(message: str, exit_code: int) -> int:
    print(f"edgemoe: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def _drop_stdout() -> int:
    """The reader of our output has gone (``edgemoe ... | head``): leave without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE
