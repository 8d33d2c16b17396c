"""How a model is measured on text, for plans and profiles: options that both have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemoe import arguments
from edgemoe.calib.text import DEFAULT_WINDOW
from edgemoe.calib.widths import CalibrationOptions
from edgemoe.calib.widths.choose import DEFAULT_TOKENS
from edgemoe.convert import open_runnable
from edgemoe.errors import RequestError
from edgemoe.executors import LOCAL, ExecutorOptions
from edgemoe.models import read_spec
from edgemoe.quant import format_for_bits

LEAST_TOKENS = 2  # of a text or a window: of one token nothing is predicted


@dataclass(frozen=True)
class MeasuringOptions:
    """Of all texts ``max_tokens`` are used, of which the model sees ``window`` at once (by default 512, or
    its context). ``dense_bits`` is the width of all matrices but the experts, by default 8.

    ``executor`` says where the work runs; its ``memory_bytes`` is what each worker may take, by default what
    is free.
    """

    dense_bits: str | int | None = None
    max_tokens: int = DEFAULT_TOKENS
    window: int | None = None
    executor: ExecutorOptions = LOCAL

    def __post_init__(self) -> None:
        check_text_options(self.max_tokens, self.window)
        if not isinstance(self.executor, ExecutorOptions):
            raise RequestError(f"executor is {self.executor!r:.60}; give ExecutorOptions")
        self.calibration()

    def calibration(self) -> CalibrationOptions:
        """The same as the measuring code takes it.

        Raises:
            RequestError: there is no such width.
        """
        dense = None if self.dense_bits is None else format_for_bits(self.dense_bits)
        return CalibrationOptions(self.max_tokens, self.window, dense, self.executor.memory_bytes)


def check_text_options(max_tokens: int | None, window: int | None) -> None:
    """Refuse numbers of tokens that would be cut from the wrong end of a text, or are none.

    Raises:
        RequestError: saying so; None is the default of either.
    """
    for name, value in (("max_tokens", max_tokens), ("window", window)):
        if value is not None:
            arguments.whole(name, value, LEAST_TOKENS)


def window_within(store: str | Path, window: int | None) -> int:
    """The window asked for, or the default one as far as the model of a store takes it; in tokens."""
    if window is not None:
        return window
    return min(DEFAULT_WINDOW, read_spec(open_runnable(store).config).max_context)
