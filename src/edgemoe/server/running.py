"""Starting and stopping a server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from edgemoe.errors import RequestError
from edgemoe.server.options import ServerOptions

if TYPE_CHECKING:
    from edgemoe.api import Model
    from edgemoe.engine.parking import Parking
    from edgemoe.server.app import Application


def serve(
    stores: str | Path | Sequence[str | Path],
    memory: str | int | None = None,
    *,
    aliases: Sequence[str] = (),
    options: ServerOptions | None = None,
    on_listening: Callable[[Sequence[str]], None] | None = None,
    **load_options: Any,
) -> None:
    """Serve stores until SIGTERM or Ctrl-C: then running answers end, and new ones are refused.

    Args:
        stores: a store, or several of which one is in memory at a time.
        memory: cap on the whole process, as for ``edgemoe.load``.
        aliases: names for the stores, in order, as far as they go; others are called by their folder.
        options: address, key and limits.
        on_listening: told of the addresses once clients can come, such as ``["http://127.0.0.1:8080"]``.
        load_options: further options of ``edgemoe.load``, such as ``context``.

    Raises:
        RequestError: a package is missing, a name is given twice, or the address cannot be had: before
            anything is loaded.
        StoreError, BudgetError: the first store cannot be loaded.
    """
    app = create_app(stores, memory, aliases=aliases, options=options, **load_options)
    from edgemoe.server.listening import Listener, bound

    with bound(app.options.host, app.options.port) as sockets:
        app.shelf.load_first()  # before anything listens: an error ends the command
        server = Listener(app, on_listening)
        with hang_up_like_sigterm(server.handle_exit):
            server.run(sockets)


@contextmanager
def hang_up_like_sigterm(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A terminal that closes ends the server as SIGTERM does: answers come to their end, texts are parked.
    Where SIGHUP is ignored already, as below nohup, it stays ignored.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, lambda _, frame: handle(signal.SIGTERM, frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def create_app(
    stores: str | Path | Sequence[str | Path],
    memory: str | int | None = None,
    *,
    aliases: Sequence[str] = (),
    options: ServerOptions | None = None,
    **load_options: Any,
) -> Application:
    """The server as an ASGI application, for a host of your own; arguments as of ``serve``."""
    _require_packages()
    import edgemoe
    from edgemoe.server.app import Application
    from edgemoe.server.local_model import LocalModel
    from edgemoe.server.shelf import Shelf, name_stores

    options = options or ServerOptions()
    load_options.setdefault("num_texts", options.parallel)
    load_options.setdefault("has_grammars", True)
    paths = [Path(stores)] if isinstance(stores, str | Path) else [Path(store) for store in stores]
    if not paths:
        raise RequestError("there is no store to serve; give at least one")

    def load(name: str, path: Path) -> LocalModel:
        model = edgemoe.load(path, memory, **load_options)
        try:
            return LocalModel(name, model, _parking(model, options))
        except BaseException:
            model.close()
            raise

    return Application(Shelf(name_stores(paths, aliases), load), options)


def _parking(model: Model, options: ServerOptions) -> Parking | None:
    if options.park is None:
        return None
    return model.engine.session.parking(options.park, options.park_bytes, model.engine.weights_id)


def _require_packages() -> None:
    from importlib.util import find_spec

    missing = [
        name for name in ("starlette", "uvicorn", "prometheus_client", "llguidance") if not find_spec(name)
    ]
    if missing:
        raise RequestError(f"the server needs {', '.join(missing)}; pip install 'edgemoe[serve]'")
