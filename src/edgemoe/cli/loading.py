"""The options that say how a store is loaded, and loading it by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemoe.cli.options import ContextOption, DraftOption, MemoryOption, ThreadsOption, TierOption

if TYPE_CHECKING:
    from edgemoe.api import Model


@dataclass(frozen=True)
class LoadArguments:
    """How a store is loaded: the options of every command that runs one."""

    memory: MemoryOption = None
    context: ContextOption = None
    num_threads: ThreadsOption = None
    tier: TierOption = None
    draft: DraftOption = "auto"

    def keywords(self) -> dict[str, Any]:
        """What ``edgemoe.load`` takes by name; ``memory`` it takes by place."""
        return {
            "context": self.context,
            "num_threads": self.num_threads,
            "tier": self.tier,
            "draft": self.draft,
        }

    @contextmanager
    def load(self, store: Path) -> Iterator[Model]:
        """The loaded model; tells on stderr of a budget that nobody asked for, or that is not free."""
        import edgemoe
        from edgemoe.cli.output import say, waiting
        from edgemoe.engine.memory import budget_note

        with waiting(f"loading {store.name or store}"):
            model = edgemoe.load(store, self.memory, **self.keywords())
        with model:
            note = budget_note(model.memory, self.memory)
            if note is not None:
                say(note)
            yield model
