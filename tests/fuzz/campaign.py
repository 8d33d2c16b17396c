"""A bounded run of damaged files through the readers, each in a process with limits of memory and time.

Every input must give a result or an error of ours of one printable line. What crashes the process, takes
its memory or its time is found by the one that watches it; a fault has a number, by which it is made again.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.targets import TARGETS

from edgemoe.errors import EdgeMoEError

# What a sound file of these sizes needs is far below; a file that asks for more is refused by its reader.
MEMORY_BYTES = 2 << 30
INPUT_SECONDS = 20


@dataclass(frozen=True)
class Fault:
    """What went wrong with one input."""

    target: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.target} {self.number}: {self.what}"


def run_campaign(seconds: float, names: Sequence[str] = (), first: int = 0) -> tuple[int, list[Fault]]:
    """Fuzz targets in turn for about so long; the number of inputs, and what was found."""
    targets = list(names) or list(TARGETS)
    num_inputs, faults = 0, []
    with tempfile.TemporaryDirectory() as work:
        for name in targets:
            seeds = Path(work) / name / "seeds"
            seeds.mkdir(parents=True)
            TARGETS[name].seed(seeds)
        end = time.monotonic() + seconds
        for index, name in enumerate(targets):
            share = (end - time.monotonic()) / (len(targets) - index)
            count, found = _run_target(name, Path(work) / name, share, first)
            num_inputs += count
            faults += found
    return num_inputs, faults


def _run_target(name: str, folder: Path, seconds: float, first: int) -> tuple[int, list[Fault]]:
    faults: list[Fault] = []
    number, end = first, time.monotonic() + seconds
    while time.monotonic() < end or number == first:
        last, fault = _run_child(name, folder, number, end)
        if fault is not None:
            faults.append(Fault(name, last, fault))
        number = last + 1
    return number - first, faults


def _run_child(name: str, folder: Path, first: int, end: float) -> tuple[int, str | None]:
    """Inputs from ``first`` on in a process of their own, until one is wrong or the time is over."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        code = 1
        try:
            _limit()
            code = _work(name, folder, first, end, write_end)
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    os.close(write_end)
    last, fault = first, None
    with os.fdopen(read_end, "rb") as pipe:
        for line in pipe:
            if line.startswith(b"@"):
                last = int(line[1:])
            else:
                fault = line.decode("utf-8", "replace").strip()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kind = signal.Signals(os.WTERMSIG(status)).name
        fault = f"{INPUT_SECONDS} s were not enough" if kind == "SIGALRM" else f"killed by {kind}"
    elif os.WEXITSTATUS(status) and fault is None:
        fault = f"ended with {os.WEXITSTATUS(status)}"
    return last, fault


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    warnings.simplefilter("ignore")


def _work(name: str, folder: Path, first: int, end: float, out: int) -> int:
    target = TARGETS[name]
    for number in _numbers(first, end):
        os.write(out, b"@%d\n" % number)
        variant = folder / f"variant-{number}"
        target.damage(folder / "seeds", variant, random.Random(f"{name} {number}"))
        signal.alarm(INPUT_SECONDS)
        fault = _fault_of(target.read, variant)
        signal.alarm(0)
        shutil.rmtree(variant)
        if fault is not None:
            os.write(out, f"{fault}\n".encode("utf-8", "replace"))
            return 3
    return 0


def _numbers(first: int, end: float) -> Iterator[int]:
    number = first
    while number == first or time.monotonic() < end:
        yield number
        number += 1


def _fault_of(read: object, variant: Path) -> str | None:
    try:
        read(variant)  # type: ignore[operator]
    except EdgeMoEError as error:
        message = str(error)
        return None if message and message.isprintable() else f"not one printable line: {message!r}"
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} at {frame.filename}:{frame.lineno}"
        return " ".join(text[:400].split())
    return None


def main(arguments: Sequence[str]) -> int:
    """The command; see scripts/fuzz."""
    import argparse

    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    options = parser.parse_args(arguments)
    num_inputs, faults = run_campaign(options.seconds, options.targets, options.first)
    for fault in faults:
        print(fault)
    print(f"{num_inputs} inputs, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
