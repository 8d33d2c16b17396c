"""Entry of the command ``edgemoe``: runs one command and turns every failure into one line and an exit code.

Exit codes: 0 done; 1 a defect of ours; 2 wrong request, model, store or budget; 130 stopped by Ctrl-C, 141
nobody reads the output any more, 143 stopped by SIGTERM.
Imports wait until :func:`main` runs, so that Ctrl-C is already handled while they happen.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, TextIO

EXIT_DEFECT = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_TERMINATED = 143  # 128 + SIGTERM

# Commands that solve linear systems with NumPy, whose library starts a thread for every core when imported,
# and where the system allows no more threads it interrupts the process: the others do without, and so do
# these where there cannot be so many.
_USE_LINEAR_ALGEBRA = {"convert", "profile", "plan", "fit", "simulate"}

# What to do about the limits that a shell sets for its commands.
_LIMITS = {
    errno.EFBIG: "; raise the limit of a file's size (ulimit -f)",
    errno.EMFILE: "; raise the limit of open files (ulimit -n)",
}


class _Terminated(BaseException):
    """Somebody asked the process to end. Unlike Ctrl-C, which ends an answer of ``chat``, nothing goes on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``edgemoe`` with these arguments (default: those of the process); returns the exit code."""
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            _end_at_once_on_signals()
    # One that came while another was told, or while what failed was tidied up.
    except _Terminated:
        return _say("terminated", EXIT_TERMINATED)
    except KeyboardInterrupt:
        return _say("interrupted", EXIT_INTERRUPTED)


def _run(arguments: list[str]) -> int:
    shows_traceback = "--debug" in arguments or bool(os.environ.get("EDGEMOE_DEBUG"))
    try:
        _handle_signals()
        open_streams()
        warnings.showwarning = _show_warning
        if _USE_LINEAR_ALGEBRA.isdisjoint(arguments) or not _may_have_threads():
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from edgemoe.cli.app import run_app

        code = run_app([argument for argument in arguments if argument != "--debug"])
        sys.stdout.flush()  # a full disk or a reader that has gone shows here, not at the very end
        # The command-line library turns Ctrl-C into this code without a word.
        return _say("interrupted", code) if code == EXIT_INTERRUPTED else code
    except BrokenPipeError:
        return _drop_stdout(EXIT_BROKEN_PIPE)
    except SystemExit as done:  # into which the library makes the one before, and the end of a completion
        return _drop_stdout(EXIT_BROKEN_PIPE if done.code else 0)
    except _Terminated:
        return _say("terminated", EXIT_TERMINATED)
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, shows_traceback=shows_traceback)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """What a caller of the Python functions sees as a warning: one line, without where it comes from."""
    _say(str(message), EXIT_REFUSED)


def open_streams() -> None:
    """Make the three standard streams what every command counts on: open, and UTF-8 whatever the locale.

    The next file that is opened would take the number of a closed one, and what is printed would be written
    into it. What a terminal cannot show is no reason to lose an answer.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, flags), number)
    if _is_missing(sys.stdin):
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it is meant to stay
    if _is_missing(sys.stdout):
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if _is_missing(sys.stderr):
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    # Programs that call `main` may have put streams of their own here, which have no encoding to choose.
    for stream, errors in (
        (sys.stdin, "surrogateescape"),  # a text that is not UTF-8 is refused by name where it is used
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _is_missing(stream: TextIO | None) -> bool:
    """Whether there is nothing to read from or write to: programs without a console close their streams."""
    return stream is None or getattr(stream, "closed", False)


def _may_have_threads() -> bool:
    """Whether a thread for every core can be made."""
    from threading import Event, Thread

    is_over, made = Event(), list[Thread]()
    try:
        for _ in range(os.cpu_count() or 1):
            thread = Thread(target=is_over.wait, daemon=True)
            thread.start()
            made.append(thread)
    except RuntimeError:
        return False
    finally:
        is_over.set()
        for thread in made:
            thread.join()
    return True


def _handle_signals() -> None:
    with suppress(ValueError):  # not the main thread: its program has the say
        signal.signal(signal.SIGTERM, _terminate)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_at_once_on_signals() -> None:
    """What was to be tidied up is: another signal must not print a traceback while Python shuts down."""
    # Where Ctrl-C came while Python ran a text as code (a dataclass is made so), it remembers that nobody
    # caught it and ends the process by the signal at last, whatever its exit code. Another text clears that.
    exec("")
    with suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)


def _terminate(*_: object) -> NoReturn:
    """What is half done is tidied up on the way out."""
    raise _Terminated


def _report(error: BaseException, *, shows_traceback: bool) -> int:
    from edgemoe.cli.app import UsageError, describe_usage_error, is_abort
    from edgemoe.errors import EdgeMoEError

    if shows_traceback:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt) or is_abort(error):
        return _say("interrupted", EXIT_INTERRUPTED)
    if isinstance(error, UsageError):
        return _say(describe_usage_error(error), EXIT_REFUSED)
    if isinstance(error, EdgeMoEError):
        return _say(str(error) or type(error).__name__, EXIT_REFUSED)
    if isinstance(error, OSError):
        return _drop_stdout(_say(_describe_os_error(error), EXIT_REFUSED))
    if isinstance(error, MemoryError):
        return _say("out of memory; ask for a smaller --memory or --context", EXIT_REFUSED)
    text = f"defect: {type(error).__name__}: {error}; repeat with --debug and report what it prints"
    return _say(text, EXIT_DEFECT)


def _describe_os_error(error: OSError) -> str:
    """What went wrong and with which file, without Python's error number."""
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not error.strerror:
        return str(error) or type(error).__name__
    hint = _LIMITS.get(error.errno or 0, "")
    return f"{' and '.join(files) or 'reading or writing'}: {error.strerror}{hint}"


def _say(message: str, exit_code: int) -> int:
    with suppress(OSError):  # nobody may be there to read it
        from edgemoe.errors import printable  # names of files can hold what a terminal obeys

        print(f"edgemoe: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return exit_code


def _drop_stdout(exit_code: int) -> int:
    """Forget what cannot be written to stdout, so that Python does not try it again when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exit_code
