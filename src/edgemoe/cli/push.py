"""``edgemoe push``: a store goes to the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from edgemoe.cli.options import JsonOption, StoreArgument
from edgemoe.cli.output import print_json, say, waiting


def push(
    store: StoreArgument,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hub: org/name.")],
    is_private: Annotated[
        bool, typer.Option("--private", help="Make the repository private, if it is new.")
    ] = False,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the card; upload nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Upload a store to the Hugging Face Hub, with a model card.

    The card says how the store was made and measured. All checksums are compared before the upload, which is
    one commit. It needs a Hub token that may write: `hf auth login`, or HF_TOKEN.

    \b
    edgemoe push qwen.store me/Qwen3-30B-A3B-edgemoe --dry-run
    edgemoe push qwen.store me/Qwen3-30B-A3B-edgemoe
    """
    from edgemoe.export import model_card, push_store
    from edgemoe.store import open_store

    opened = open_store(store)
    if is_dry_run:
        card = model_card(opened, repo)
        if as_json:
            print_json({"repo": repo, "commit": None, "card": card})
        else:
            print(card)
        return
    with waiting(f"uploading {store.name or store}"):
        url = push_store(opened, repo, is_private=is_private)
    if as_json:
        print_json({"repo": repo, "commit": url})
    else:
        say(f"uploaded to {url}")
