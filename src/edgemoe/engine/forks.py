"""What must not happen to a loaded model when its process forks, or ends.

After a fork the child has the model's memory but none of its threads, and shares its ring with the parent:
touching either hangs the child or steals the parent's reads. So in the child every use is refused, and what
is compiled is never destroyed. At the interpreter's end the same goes for daemon threads: none of them begins
another step.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Protocol

from edgemoe import native


class Watched(Protocol):
    """An object that must know when the process forks and when the interpreter ends."""

    def abandon(self) -> None:
        """The process is a child of the one that loaded the model."""
        ...

    def freeze(self) -> None:
        """The interpreter is about to end."""
        ...


_watched: weakref.WeakSet[Watched] = weakref.WeakSet()
_kept: weakref.WeakSet[object] = weakref.WeakSet()


def watch(watched: Watched) -> None:
    """Tell it when the process forks or ends, as long as it lives."""
    _watched.add(watched)


def keep(owner: object) -> None:
    """Never destroy what this object refers to in a child process, nor while daemon threads see the end."""
    _kept.add(owner)


def _in_child() -> None:
    for watched in list(_watched):
        watched.abandon()
    _keep_all()


def _at_exit() -> None:
    for watched in list(_watched):
        watched.freeze()
    if threading.active_count() > 1:  # daemon threads, which may use a model until they are gone
        _keep_all()


def _keep_all() -> None:
    for owner in list(_kept):
        native.keep_forever(owner)


os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
