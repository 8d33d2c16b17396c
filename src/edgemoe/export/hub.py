"""A store on the Hugging Face Hub: all of its files in one commit, with a card that says how it was made."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgemoe.errors import ConversionError, StoreError
from edgemoe.models import family_of, read_spec
from edgemoe.store import Store
from edgemoe.store.format import MANIFEST_FILE
from edgemoe.units import format_size

_CARD = "README.md"


def push_store(store: Store, repo: str, *, is_private: bool = False, message: str | None = None) -> str:
    """Upload a store's files and its card; the address of the commit.

    The repository is made if it is not there. Tokens and mirrors are those of huggingface_hub.

    Raises:
        StoreError: a file of the store is damaged.
        ConversionError: the Hub refuses it, or cannot be reached.
    """
    import huggingface_hub as hub

    for damage in store.verify():
        raise StoreError(f"{damage}; a damaged store is not published")
    operations = [
        hub.CommitOperationAdd(name, store.path / name) for name in (*store.manifest.files, MANIFEST_FILE)
    ]
    operations.append(hub.CommitOperationAdd(_CARD, model_card(store, repo).encode()))
    # The library has read the variable when it was first imported.
    api = hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="edgemoe")
    try:
        api.create_repo(repo, private=is_private, exist_ok=True)
        commit = api.create_commit(repo, operations, commit_message=message or f"Store of {store.path.name}")
    except Exception as error:  # of the library and of its connections, which have no common base
        raise ConversionError(f"{repo}: {_remedy(error)}") from error
    return str(commit.commit_url)


def model_card(store: Store, repo: str) -> str:
    """The card in Markdown: what the store is of, its formats, where its widths came from, how to run it."""
    spec, manifest = read_spec(store.config), store.manifest
    num_weights = sum(spec.num_expert_weights(layer) for layer, _ in manifest.experts)
    num_bytes = sum(entry.num_bytes for entry in manifest.experts.values())
    formats = Counter(
        f"{projection} {name}"
        for (layer, _), entry in manifest.experts.items()
        for projection, name in zip(spec.moe(layer).expert.projections, entry.formats.to_json(), strict=True)
    )
    dense = Counter(entry.format for entry in manifest.dense.values() if len(entry.shape) == 2)
    head = {"library_name": "edgemoe", "pipeline_tag": "text-generation", "tags": ["edgemoe", "moe"]}
    rows = [f"| experts' {what} | {count} |" for what, count in sorted(formats.items())]
    rows += [f"| other matrices {what} | {count} |" for what, count in sorted(dense.items())]
    folder = repo.rsplit("/", 1)[-1]
    return "\n".join(
        [
            *("---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""),
            f"# {folder}",
            "",
            f"A store of [EdgeMoE](https://pypi.org/project/edgemoe) of a {family_of(spec).title} model with"
            f" {len(manifest.experts)} experts in {len(spec.moe_layers)} layers:"
            f" {format_size(sum(manifest.files.values()))}, {8 * num_bytes / num_weights:.2f} bits per weight"
            " of the experts, scales and padding included.",
            "",
            "```sh",
            f"hf download {repo} --local-dir {folder} && edgemoe run {folder} 'Once upon a time'",
            "```",
            "",
            "## How it was made",
            "",
            f"By {manifest.generator}.{_origin(manifest.plan)}",
            "",
            "| matrices | number |",
            "|---|---:|",
            *rows,
            "",
            "## How it was measured",
            "",
            *_measured(manifest.plan),
            "",
            "Every file and every expert has a checksum in `edgemoe.json`; all were right when it was"
            " uploaded. The licence is that of the model it was made of.",
            "",
        ]
    )


def _origin(plan: Mapping[str, Any]) -> str:
    source = plan.get("source")
    made = f" Made of `{source}`." if source else ""
    kind = plan.get("kind")
    how = {"uniform": "All experts have one width.", "as stored": "Weights are as they were stored."}
    return f"{made} {how.get(str(kind), f'Widths: {kind}.')}" if kind else made


def _measured(plan: Mapping[str, Any]) -> list[str]:
    """What the plan keeps of measurements; plain values, name by name."""
    known = {
        k: v for k, v in plan.items() if k not in ("kind", "source") and isinstance(v, int | float | str)
    }
    known |= {
        f"{name}.{key}": value
        for name, inner in plan.items()
        if isinstance(inner, Mapping)
        for key, value in inner.items()
        if isinstance(value, int | float | str)
    }
    if not known:
        return [
            "Its quality was not measured when it was made. `edgemoe eval STORE --text FILE` measures it, and"
            " `edgemoe plan` chooses widths by measuring."
        ]
    return ["| of the plan | |", "|---|---|", *(f"| {name} | {value} |" for name, value in known.items())]


def _remedy(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the Hub refuses it: run `hf auth login` with a token that may write there"
    reasons = (str(one) for one in (error, error.__cause__) if one is not None)
    return " ".join(": ".join(reasons).split())[:300] or type(error).__name__
