"""The table of commands; errors of usage as one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version as installed_version
from inspect import getdoc
from typing import Annotated

import typer

from edgemoe.cli.bench import bench
from edgemoe.cli.chat import chat
from edgemoe.cli.convert import convert
from edgemoe.cli.demo import demo
from edgemoe.cli.doctor import doctor
from edgemoe.cli.evaluate import evaluate
from edgemoe.cli.export import export
from edgemoe.cli.fit import fit
from edgemoe.cli.get import get
from edgemoe.cli.inspect import inspect
from edgemoe.cli.library import list_stores, remove
from edgemoe.cli.plan import plan
from edgemoe.cli.profile import profile
from edgemoe.cli.push import push
from edgemoe.cli.report import report
from edgemoe.cli.run import run
from edgemoe.cli.serve import serve
from edgemoe.cli.simulate import simulate
from edgemoe.cli.trace import trace

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "get": get,
    "list": list_stores,
    "remove": remove,
    "convert": convert,
    "export": export,
    "push": push,
    "profile": profile,
    "plan": plan,
    "report": report,
    "inspect": inspect,
    "run": run,
    "chat": chat,
    "serve": serve,
    "eval": evaluate,
    "trace": trace,
    "fit": fit,
    "simulate": simulate,
    "bench": bench,
    "doctor": doctor,
}

# Typer raises this class's descendants for wrong arguments, whether it brings its own copy of click or not.
UsageError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)

HELP_STYLE = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# Plain help reads the same in a terminal, in a pipe and in docs/cli.md.
app = typer.Typer(
    name="edgemoe",
    rich_markup_mode=None,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings=HELP_STYLE,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"edgemoe {installed_version('edgemoe')}")
        raise typer.Exit


def _help_text(command: Callable[..., None]) -> str:
    r"""The docstring, its marks ``\b`` made the control character that keeps the lines below as they are."""
    return (getdoc(command) or "").replace("\\b", "\b")


def edgemoe(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere on the line.")
    ] = False,
) -> None:
    r"""Run mixture-of-experts language models that are larger than the memory you give them.

    A store is a model packed for this program: a folder. get and convert make one, and --memory caps what the
    whole process takes.

    \b
    edgemoe demo                                   # see it work; nothing is downloaded
    edgemoe get Qwen/Qwen3-30B-A3B --dry-run       # download size, store size, speed on this machine
    edgemoe convert ./Qwen3-30B-A3B qwen.store     # a model that is already on your disk
    edgemoe inspect qwen.store --memory 6GiB       # how the budget would be divided
    edgemoe run qwen.store --memory 6GiB --chat "Why is the sky blue?"
    edgemoe chat qwen.store --memory 6GiB
    """


app.callback(help=_help_text(edgemoe))(edgemoe)
for _name, _command in COMMANDS.items():
    app.command(name=_name, help=_help_text(_command), context_settings=HELP_STYLE)(_command)


def run_app(arguments: Sequence[str]) -> int:
    """Parse and run, or show the help if there is nothing to run; returns the exit code.

    Errors pass through to the caller.
    """
    code = app(args=list(arguments) or ["--help"], prog_name="edgemoe", standalone_mode=False)
    return code if isinstance(code, int) else 0


def is_abort(error: BaseException) -> bool:
    """Whether the library says so that the user pressed Ctrl-C or Ctrl-D at a prompt."""
    return isinstance(error, typer.Abort)


def describe_usage_error(error: Exception) -> str:
    """One line: what is wrong with the arguments, and where the help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgemoe"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{message.rstrip('.')}; see: {command} --help"
