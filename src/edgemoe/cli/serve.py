"""``edgemoe serve``: models behind OpenAI's and Anthropic's protocols, and a page."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemoe.cli.groups import with_groups
from edgemoe.cli.loading import LoadArguments
from edgemoe.cli.options import JsonOption, unset
from edgemoe.cli.output import print_json, say, shown_store
from edgemoe.units import parse_size

if TYPE_CHECKING:
    from edgemoe.server import ServerOptions


@dataclass(frozen=True)
class ServerArguments:
    """Where the server listens, whom it answers and how many, and what it keeps of texts."""

    host: Annotated[
        str,
        typer.Option("--host", metavar="NAME", help="Address to listen at; 0.0.0.0 accepts every network."),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="N", min=0, max=65535, help="Port to listen at; 0 takes any free one."
        ),
    ] = 8080
    api_key: Annotated[
        str | None,
        unset("--api-key", "TEXT", "Key that clients must send.", envvar="EDGEMOE_API_KEY", show_envvar=True),
    ] = None
    parallel: Annotated[
        int,
        typer.Option(
            "--parallel", metavar="N", min=1, max=64, help="Answers that may be written at the same time."
        ),
    ] = 1
    idle_unload: Annotated[
        float | None,
        unset("--idle-unload", "SECONDS", "Unload the model after this time without work.", min=1),
    ] = None
    park: Annotated[
        Path | None,
        unset(
            "--park",
            "FOLDER",
            "Keep the state of texts in this folder, so that they need not be read again after a restart"
            " or when memory ran short. Its files contain what people wrote.",
        ),
    ] = None
    park_size: Annotated[
        str, typer.Option("--park-size", metavar="SIZE", help="Most disk space for --park.")
    ] = "8GiB"
    cors_origin: Annotated[
        list[str] | None,
        unset("--cors-origin", "URL", "Let web pages of this origin use the server; can be repeated."),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        unset("--allowed-host", "NAME", "A further host name of this server; can be repeated."),
    ] = None
    log_prompts: Annotated[
        bool,
        typer.Option(
            "--log-prompts",
            help="Write prompts and answers into the log as well. It then contains what people wrote.",
        ),
    ] = False

    def options(self) -> ServerOptions:
        """As the server takes them."""
        from edgemoe.server import ServerOptions

        return ServerOptions(
            host=self.host,
            port=self.port,
            api_key=self.api_key,
            parallel=self.parallel,
            idle_unload_s=self.idle_unload,
            logs_prompts=self.log_prompts,
            park=self.park.expanduser() if self.park else None,
            park_bytes=parse_size(self.park_size),
            cors_origins=tuple(self.cors_origin or ()),
            allowed_hosts=tuple(self.allowed_host or ()),
        )


@with_groups
def serve(
    stores: Annotated[
        list[Path],
        typer.Argument(
            metavar="STORE",
            help="Folders made by convert, names shown by list, URLs, GGUF files; one is loaded at a time.",
        ),
    ],
    loading: LoadArguments,
    server: ServerArguments,
    alias: Annotated[
        list[str] | None,
        unset("--alias", "NAME", "Name by which clients call a store; repeat it for each store."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    r"""Serve models over OpenAI's and Anthropic's APIs, with a chat page.

    The paths /v1/chat/completions, /v1/completions, /v1/responses and /v1/messages work as in those APIs; the
    page is at /. After SIGTERM or Ctrl-C, running answers are finished and new requests refused.

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
        **loading.keywords(),
    )
