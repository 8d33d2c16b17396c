"""``edgemoe serve``: models behind OpenAI's and Anthropic's protocols, and a page."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.options import ContextOption, DraftOption, MemoryOption, ThreadsOption, TierOption
from edgemoe.cli.output import say, shown_store
from edgemoe.units import parse_size


def serve(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", help="Folders made by convert, or URLs; one is loaded at a time."),
    ],
    memory: MemoryOption = None,
    host: Annotated[
        str, typer.Option("--host", metavar="NAME", help="Address to listen at; 0.0.0.0 is every network.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any free port.")
    ] = 8080,
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
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            "--alias",
            metavar="NAME",
            help="What clients call a store; give one for each.",
            show_default=False,
        ),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", metavar="N", min=1, max=64, help="Answers written at the same time.")
    ] = 1,
    context: ContextOption = None,
    num_threads: ThreadsOption = None,
    tier: TierOption = None,
    draft: DraftOption = "auto",
    idle_unload: Annotated[
        float | None,
        typer.Option(
            "--idle-unload",
            metavar="SECONDS",
            min=1,
            help="Unload the model after so long without work.",
            show_default=False,
        ),
    ] = None,
    park: Annotated[
        Path | None,
        typer.Option(
            "--park",
            metavar="FOLDER",
            help="Keep what was read there: it is not read again after a restart, or when memory was needed "
            "for others. The files tell what people wrote.",
            show_default=False,
        ),
    ] = None,
    park_size: Annotated[
        str, typer.Option("--park-size", metavar="SIZE", help="The most that --park may take.")
    ] = "8GiB",
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            metavar="URL",
            help="Web pages of this origin may ask; may be given again.",
            show_default=False,
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="A further name of this server; may be given again.",
            show_default=False,
        ),
    ] = None,
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
    from edgemoe.server import ServerOptions
    from edgemoe.server import serve as run_server

    options = ServerOptions(
        host=host,
        port=port,
        api_key=api_key,
        parallel=parallel,
        idle_unload_s=idle_unload,
        park=park.expanduser() if park else None,
        park_bytes=parse_size(park_size),
        cors_origins=tuple(cors_origin or ()),
        allowed_hosts=tuple(allowed_host or ()),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    say(f"loading {shown_store(stores[0])}")
    run_server(
        list(stores),
        memory,
        aliases=tuple(alias or ()),
        options=options,
        context=context,
        num_threads=num_threads,
        tier=tier,
        draft=draft,
    )
