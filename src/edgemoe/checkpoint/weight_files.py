"""Which files of a folder hold the model's weights: those that transformers would read, and no others.

In this order: the file that config.json names (``transformers_weights``), model.safetensors, its index,
pytorch_model.bin, its index. A file beside them supplies nothing, whatever it is called. Beyond transformers
a numbered set without an index is taken where it is complete.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemoe.checkpoint.stand_ins import read_json
from edgemoe.errors import CheckpointError, MissingTensorError

# Names of the tensors that an index expects of each file; None: all that the file holds.
Files = dict[Path, set[str] | None]

_INDEX = ".index.json"
_KINDS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})")
# What a folder without the files above may hold instead, and what to do; the first that matches is told.
_OTHERS = (
    ("adapter_model.*", "an adapter, not a model: merge it into its base model and convert that"),
    ("adapter_config.json", "an adapter, not a model: merge it into its base model and convert that"),
    (
        "zero_to_fp32.py",
        "DeepSpeed's, which joins the parts of a training: run it, and convert what it writes",
    ),
    ("global_step*", "the parts of a training by DeepSpeed: join them with its zero_to_fp32.py"),
    ("pytorch_model_fsdp_*", "the parts of a training by FSDP: join them with `accelerate merge-weights`"),
    ("*.distcp", "a part of a training by FSDP: join them with `accelerate merge-weights`"),
    ("*.gguf", "a GGUF file: give that file itself"),
    ("*.safetensors.part*", "a download that has not ended: fetch the model again"),
    ("*.incomplete", "a download that has not ended: fetch the model again"),
    ("model.*.safetensors", "a variant: rename it to model.safetensors (and an index accordingly)"),
    ("consolidated.*", "weights in their makers' own layout: fetch the files that transformers reads"),
    ("*.pth", "weights in their makers' own layout: fetch the files that transformers reads"),
    ("flax_model.msgpack", "weights of Flax: load them with transformers and save them as safetensors"),
    ("tf_model.h5", "weights of TensorFlow: load them with transformers and save them as safetensors"),
    ("*.onnx", "weights of ONNX: fetch the safetensors"),
    ("weights*.npz", "weights of MLX: fetch the model that they were made from"),
    ("*.safetensors", "not a name that transformers reads: rename it to model.safetensors if it is all"),
    ("pytorch_model*.bin", "not a name that transformers reads: rename it to pytorch_model.bin if it is all"),
)


def find_weight_files(folder: Path, config: Mapping[str, Any]) -> Files:
    """The files that hold the weights.

    Raises:
        CheckpointError: there are none, some are missing, or an index leaves the folder.
    """
    named = config.get("transformers_weights")
    if named is not None:
        path = _inside(folder, named, folder / "config.json")
        if path.name.endswith(_INDEX):
            return _indexed(path)
        return _all_there({path: None}, folder / "config.json")
    for stem, suffix in _KINDS:
        whole = folder / f"{stem}{suffix}"
        if whole.is_file():
            return {whole: None}
        index = folder / f"{stem}{suffix}{_INDEX}"
        if index.is_file():
            return _indexed(index)
    for stem, suffix in _KINDS:
        numbered = _numbered(folder, stem, suffix)
        if numbered:
            return numbered
    refuse_others(folder, "model.safetensors")
    raise CheckpointError(f"{folder}: no model.safetensors and no pytorch_model.bin; fetch the model again")


def refuse_others(folder: Path, missing: str) -> None:
    """Say what a folder without the ``missing`` file holds instead, if that is known.

    Raises:
        CheckpointError: it is.
    """
    path = folder / missing
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path}: is a folder or a device, not a file; fetch the model again")
    if path.is_symlink() and not path.exists():
        target = path.readlink()
        raise CheckpointError(f"{path}: is a link to {target}, which is not there; fetch the model again")
    inner = _inner_models(folder)
    if inner:
        which = (
            f"its folder {inner[-1].name}" if len(inner) == 1 else f"its folders, such as {inner[-1].name}"
        )
        raise CheckpointError(f"{folder}: no {missing}; models are in {which}: give that, {inner[-1]}")
    for pattern, what in _OTHERS:
        found = min(folder.glob(pattern), default=None)
        if found is not None:
            raise CheckpointError(f"{folder}: no {missing}; {found.name} is {what}")


def _inner_models(folder: Path) -> list[Path]:
    """Folders in this one that hold models, as training leaves them; of numbered ones the last comes last."""
    found = [
        path.parent
        for path in folder.glob("*/config.json")
        if any(
            (path.parent / f"{stem}{suffix}{index}").is_file()
            for stem, suffix in _KINDS
            for index in ("", _INDEX)
        )
    ]
    return sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])


def _indexed(index: Path) -> Files:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map; fetch the file again")
    names: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        if not isinstance(file, str):
            raise CheckpointError(f"{index}: says of {tensor} what is no name of a file; fetch it again")
        names.setdefault(file, set()).add(tensor)
    return _all_there({_inside(index.parent, file, index): names[file] for file in sorted(names)}, index)


def _inside(folder: Path, name: Any, source: Path) -> Path:
    """A file below the folder; links are followed, as downloads make them, names that lead out are not."""
    path = Path(name) if isinstance(name, str) and name.isprintable() else None
    if path is None or path.is_absolute() or ".." in path.parts or not path.name:
        raise CheckpointError(f"{source}: names the file {name!r}, which is not one of its folder")
    return folder / path


def _all_there(files: Files, source: Path) -> Files:
    missing = [path for path in files if not path.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingTensorError(
            f"{missing[0]}: not found{more}, though {source.name} names it; fetch the model again"
        )
    return files


def _numbered(folder: Path, stem: str, suffix: str) -> Files:
    """A complete set STEM-00001-of-0000N, which only lacks its index; none where there is no such file."""
    matches = {path: _NUMBERED.fullmatch(path.stem) for path in sorted(folder.glob(f"{stem}-*{suffix}"))}
    numbers = {path: (int(m[2]), int(m[3])) for path, m in matches.items() if m and m[1] == stem}
    totals = {total for _, total in numbers.values()}
    if not numbers:
        return {}
    count = max(totals)
    if len(totals) > 1 or sorted(n for n, _ in numbers.values()) != list(range(1, count + 1)):
        raise CheckpointError(
            f"{folder}: {len(numbers)} files {stem}-*{suffix} of {count}, and no {stem}{suffix}{_INDEX} that"
            " says which belong together; fetch the model again"
        )
    return dict.fromkeys(numbers)
