"""Which width each tensor of a compressed-tensors checkpoint has, and the configuration that says so.

vLLM takes one width for all experts of a layer, and makes one matrix of queries, keys and values, or of gate
and up: so the matrices of a block of a layer have one width. Widths here are bits: 4 and 8 are integers, 16
is bf16, 32 is f32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemoe.errors import RequestError
from edgemoe.export.integers import GROUP_COLS
from edgemoe.export.outline import Target
from edgemoe.quant import format_info
from edgemoe.store import Manifest

BF16, F32 = 16, 32
# By the names that programs which make such checkpoints have for them: weights and activations.
TYPES = {"w4a16": 4, "w8a16": 8, "bf16": BF16}
# These are no layers to the programs that read them: they are taken as floats.
_OUTSIDE = ("embed.weight", "head.weight")
_HEAD = "lm_head"


@dataclass(frozen=True)
class Widths:
    """Bits by the name of a tensor; ``experts``: those of experts by layer; ``dense``: of other matrices that
    are integers, None where there are none.
    """

    of: Mapping[str, int]
    experts: Mapping[int, int]
    dense: int | None

    @property
    def are_alike(self) -> bool:
        """Whether the experts of all layers have one width."""
        return len(set(self.experts.values())) == 1


def bits_of_type(name: str | None) -> int | None:
    """The width that a type asks for; None where none is asked for.

    Raises:
        RequestError: there is no such type.
    """
    if name is None:
        return None
    if name.lower() not in TYPES:
        raise RequestError(f"--type {name}: choose one of {', '.join(TYPES)}")
    return TYPES[name.lower()]


def settle_widths(targets: Sequence[Target], manifest: Manifest, asked: int | None) -> Widths:
    """The width of each tensor.

    Experts of a layer: 4 bits where none of them has more, else 8, bf16 where one is a float. Other matrices:
    8 bits, where one of their block is an integer. ``asked``: what all of them have instead.
    """
    experts: dict[int, int] = {}
    blocks: dict[str, int] = {}
    for target in targets:
        bits = asked or max(_width(_format(part.of, manifest)) for part in target.parts)
        layer = _layer_of_experts(target)
        if layer is not None:
            experts[layer] = max(experts.get(layer, 0), bits)
        elif _is_layer(target):
            blocks[_block(target)] = min(blocks.get(_block(target), BF16), asked or max(bits, 8))
    found: dict[str, int] = {}
    for target in targets:
        layer = _layer_of_experts(target)
        if layer is not None:
            found[target.name] = experts[layer]
        elif _is_layer(target):
            found[target.name] = blocks[_block(target)]
        else:
            found[target.name] = BF16 if target.is_matrix else F32
    return Widths(found, experts, min((b for b in blocks.values() if b < BF16), default=None))


def quantization_config(
    targets: Sequence[Target], widths: Widths, names_of: Callable[[str], Iterable[str]]
) -> dict[str, Any] | None:
    """What config.json says of the matrices that are integers; None where there are none.

    ``names_of``: all names that programs have for a tensor of the model, by its canonical name. The
    configuration has to leave out a float under whichever a program knows it.
    """
    groups: list[tuple[list[str], int]] = []
    # A tied head is a module of its own too.
    ignored = {_HEAD: None}
    if widths.dense is None or set(widths.experts.values()) != {widths.dense}:
        # The widest first: transformers (5.23) takes the first for all layers, and stops where others differ.
        for bits in sorted(set(widths.experts.values()), reverse=True):
            pattern = _pattern_of_experts(widths, bits)
            if bits < BF16:
                groups.append(([pattern], bits))
            else:
                ignored[pattern] = None
    if widths.dense is not None:
        groups.append((["Linear"], widths.dense))
    for target in targets:
        if len(target.entry) == 2 and widths.of[target.name] >= BF16:
            names = [name for part in target.parts if isinstance(part.of, str) for name in names_of(part.of)]
            ignored |= dict.fromkeys(map(_pattern, names))
    if not groups:
        return None
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{i}": {"targets": names, "weights": _weights(bits)}
            for i, (names, bits) in enumerate(groups)
        },
        "ignore": list(ignored),
    }


def module_of(name: str) -> str:
    """The name of the module that a tensor is the weight of."""
    return name.removesuffix(".weight")


def _weights(bits: int) -> dict[str, Any]:
    return {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP_COLS,
        "dynamic": False,
    }


def _format(of: str | tuple[int, int, str], manifest: Manifest) -> str:
    if isinstance(of, str):
        return manifest.dense[of].format
    return str(getattr(manifest.experts[of[:2]].formats, of[2]))


def _width(format: str) -> int:
    bits = format_info(format).bits
    return 4 if bits <= 4 else 8 if bits <= 8 else BF16


def _layer_of_experts(target: Target) -> int | None:
    of = target.parts[0].of
    return of[0] if isinstance(of, tuple) else None


def _is_layer(target: Target) -> bool:
    """Whether it is the matrix of a layer that can be integers: not one row alone, which gates something."""
    if not target.is_matrix or len(target.entry) != 2 or target.parts[0].of in _OUTSIDE:
        return False
    return target.name.endswith(".weight") and target.entry[0] > 1


def _block(target: Target) -> str:
    """The module around a matrix, in whatever layer."""
    return re.sub(r"\.\d+\.", ".*.", module_of(target.name)).rpartition(".")[0]


def _pattern(name: str) -> str:
    """The module of a matrix, in whatever layer, as a target of compressed-tensors."""
    *outer, inner = re.split(r"\.\d+\.", module_of(name))
    return rf"re:.*\.{re.escape(inner)}$" if outer else inner


def _pattern_of_experts(widths: Widths, bits: int) -> str:
    """The experts of the layers of this width, as a target of compressed-tensors.

    What stands between layer and experts is left open: vLLM's modules are not always named as the tensors.
    """
    if widths.are_alike:
        return r"re:.*\.experts\..*"
    layers = "|".join(str(layer) for layer, width in widths.experts.items() if width == bits)
    return rf"re:.*\.layers\.({layers})\..*\.experts\..*"
