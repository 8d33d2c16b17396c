"""``edgemoe serve``: models behind OpenAI's and Anthropic's protocols, and a page."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.groups import with_groups
from edgemoe.cli.options import JsonOption, LoadArguments
from edgemoe.cli.output import print_json, say, shown_store
from edgemoe.units import parse_size

if TYPE_CHECKING:
    from edgemoe.server import ServerOptions


@dataclass(frozen=True)
class ServerArguments:
    """Where the server listens, whom it answers and how many, and what it keeps of texts."""

    host: Annotated[
        str, typer.Option("--host", metavar="NAME", help="Address to listen at; 0.0.0.0 is every network.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any free port.")] = (
        8080
    )
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="TEXT",
            envvar="EDGEMOE_API_KEY",
            help="Ask clients for this key.",
            show_default=False,
            show_envvar=True,
        ),
    ] = None
    parallel: Annotated[
        int, typer.Option("--parallel", metavar="N", min=1, max=64, help="Answers written at the same time.")
    ] = 1
    idle_unload: Annotated[
        float | None,
        typer.Option(
            "--idle-unload",
            metavar="SECONDS",
            min=1,
            help="Unload the model after so long without work.",
            show_default=False,
        ),
    ] = None
    park: Annotated[
        Path | None,
        typer.Option(
            "--park",
            metavar="FOLDER",
            help="Keep what was read there: it is not read again after a restart, or when memory was needed "
            "for others. The files tell what people wrote.",
            show_default=False,
        ),
    ] = None
    park_size: Annotated[
        str, typer.Option("--park-size", metavar="SIZE", help="The most that --park may take.")
    ] = "8GiB"
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            metavar="URL",
            help="Web pages of this origin may ask; may be given again.",
            show_default=False,
        ),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="A further name of this server; may be given again.",
            show_default=False,
        ),
    ] = None

    def options(self) -> ServerOptions:
        """As the server takes them."""
        from edgemoe.server import ServerOptions

        return ServerOptions(
            host=self.host,
            port=self.port,
            api_key=self.api_key,
            parallel=self.parallel,
            idle_unload_s=self.idle_unload,
            park=self.park.expanduser() if self.park else None,
            park_bytes=parse_size(self.park_size),
            cors_origins=tuple(self.cors_origin or ()),
            allowed_hosts=tuple(self.allowed_host or ()),
        )


@with_groups
def serve(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Folders made by convert, or URLs; one is loaded at a time."),
    ],
    loading: LoadArguments,
    server: ServerArguments,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            "--alias",
            metavar="NAME",
            help="What clients call a store; give one for each.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    r"""Serve models to any client of OpenAI's or Anthropic's API, and a page to talk with them.

    /v1/chat/completions, /v1/completions, /v1/responses and /v1/messages answer as those APIs do; the page is
    at /. SIGTERM or Ctrl-C lets running answers end and refuses new ones.

    \b
    edgemoe serve qwen.store --memory 8GiB
    edgemoe serve qwen.store olmoe.store --memory 8GiB --idle-unload 600
    edgemoe serve qwen.store --memory 8GiB --park ~/.cache/edgemoe/texts --park-size 20GiB
    edgemoe serve qwen.store --host 0.0.0.0 --api-key "$KEY" --alias qwen
    """
    from edgemoe.server import serve as run_server

    options = server.options()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    say(f"loading {shown_store(stores[0])}")
    run_server(
        list(stores),
        loading.memory,
        aliases=tuple(alias or ()),
        options=options,
        on_listening=(lambda urls: print_json({"urls": list(urls)})) if as_json else None,
        context=loading.context,
        num_threads=loading.num_threads,
        tier=loading.tier,
        draft=loading.draft,
    )
