"""One item after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgemoe.executors.items import AnyItem


class Here:
    """The default; errors pass through as they are."""

    def check(self) -> None:
        """See Executor. Nothing can be missing."""

    def map(
        self,
        work: Callable[[AnyItem], None],
        items: Sequence[AnyItem],
        folder: Path,
        finished: Callable[[AnyItem], None],
    ) -> None:
        """See Executor."""
        for item in items:
            work(item)
            finished(item)
