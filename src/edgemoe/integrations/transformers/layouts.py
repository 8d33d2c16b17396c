"""Modules of transformers that hold experts, and how their parameters are the matrices of experts.

A layout recognises a module, says which of its parameters are experts, and takes these apart: gate, if any,
and up become (E, F, D), down (E, D, F), biases (E, F) and (E, D). It does so for tensors of any size and
type, so that the same function tells where in a checkpoint a matrix lies (tensors.py).

Letters: E experts, D width, F expert width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from edgemoe.errors import UnsupportedModelError
from edgemoe.integrations.transformers.activations import Inner, find_activation
from edgemoe.store.expert_modules import ExpertModule

Tensors = Mapping[str, torch.Tensor]


class Layout(Protocol):
    """One way to hold experts."""

    def recognises(self, module: Any) -> bool:
        """Whether a module holds experts in this way."""
        ...

    def parameters(self, module: Any) -> Sequence[str]:
        """Names, inside the module, of the parameters that are experts."""
        ...

    def matrices(self, module: Any, parameters: Tensors) -> dict[str, torch.Tensor]:
        """gate, up, down, gate_bias, up_bias, down_bias, those that there are, of these parameters."""
        ...

    def inner(self, module: Any) -> Inner:
        """What the module does between up and down."""
        ...


class Stacked:
    """Those of transformers' experts interface, and of the same form: one tensor for all gates and ups."""

    # Of this form without the interface.
    _OTHERS = ("Step3p7Experts", "LongcatFlashExperts")

    def recognises(self, module: Any) -> bool:
        """See Layout."""
        has_form = isinstance(getattr(module, "down_proj", None), nn.Parameter) and any(
            isinstance(getattr(module, name, None), nn.Parameter) for name in ("gate_up_proj", "up_proj")
        )
        return has_form and (hasattr(module, "is_transposed") or type(module).__name__ in self._OTHERS)

    def parameters(self, module: Any) -> Sequence[str]:
        """See Layout."""
        first = "gate_up_proj" if getattr(module, "has_gate", True) else "up_proj"
        names = [first, "down_proj"]
        return [*names, *(f"{name}_bias" for name in names)] if getattr(module, "has_bias", False) else names

    def matrices(self, module: Any, parameters: Tensors) -> dict[str, torch.Tensor]:
        """See Layout."""
        first, down, *biases = (parameters[name] for name in self.parameters(module))
        if getattr(module, "is_transposed", False):
            first, down = first.transpose(1, 2), down.transpose(1, 2)
        found = {"down": down}
        parts = [("", first)]
        if biases:
            found["down_bias"] = biases[1]
            parts.append(("_bias", biases[0]))
        for suffix, part in parts:
            if not getattr(module, "has_gate", True):
                found[f"up{suffix}"] = part
            elif getattr(module, "is_concatenated", True):
                found[f"gate{suffix}"], found[f"up{suffix}"] = part.chunk(2, dim=1)
            else:
                found[f"gate{suffix}"], found[f"up{suffix}"] = part[:, ::2], part[:, 1::2]
        return found

    def inner(self, module: Any) -> Inner:
        """See Layout."""
        if not getattr(module, "has_gate", True):
            return lambda up, _: module.act_fn(up)
        apply_gate = getattr(module, "_apply_gate", None)
        if apply_gate is None:
            return lambda gate, up: module.act_fn(gate) * up
        if getattr(module, "is_concatenated", True):
            return lambda *parts: apply_gate(torch.cat(_tensors(parts), dim=-1))
        return lambda *parts: apply_gate(torch.stack(_tensors(parts), dim=-1).flatten(-2))


def _tensors(parts: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    return [part for part in parts if part is not None]


class Llama4:
    """Llama 4: transposed, and fed with rows that are weighted already."""

    def recognises(self, module: Any) -> bool:
        """See Layout."""
        return type(module).__name__ == "Llama4TextExperts"

    def parameters(self, module: Any) -> Sequence[str]:
        """See Layout."""
        return ["gate_up_proj", "down_proj"]

    def matrices(self, module: Any, parameters: Tensors) -> dict[str, torch.Tensor]:
        """See Layout."""
        gate, up = parameters["gate_up_proj"].transpose(1, 2).chunk(2, dim=1)
        return {"gate": gate, "up": up, "down": parameters["down_proj"].transpose(1, 2)}

    def inner(self, module: Any) -> Inner:
        """See Layout."""
        return lambda gate, up: module.act_fn(gate) * up


class Dbrx:
    """DBRX: the experts' rows one after the other."""

    def recognises(self, module: Any) -> bool:
        """See Layout."""
        return type(module).__name__ == "DbrxExperts"

    def parameters(self, module: Any) -> Sequence[str]:
        """See Layout."""
        return ["mlp.w1", "mlp.v1", "mlp.w2"]

    def matrices(self, module: Any, parameters: Tensors) -> dict[str, torch.Tensor]:
        """See Layout."""
        gate, up, down = (
            parameters[name].reshape(module.num_experts, -1, parameters[name].shape[1])
            for name in self.parameters(module)
        )
        return {"gate": gate, "up": up, "down": down.transpose(1, 2)}

    def inner(self, module: Any) -> Inner:
        """See Layout."""
        return lambda gate, up: module.mlp.activation_fn(gate) * up


@dataclass(frozen=True)
class Apart:
    """A network for each expert, of two matrices: Switch Transformers and NLLB-MoE."""

    class_name: str
    up: str
    down: str
    has_bias: bool

    def recognises(self, module: Any) -> bool:
        """See Layout."""
        return type(module).__name__ == self.class_name

    def parameters(self, module: Any) -> Sequence[str]:
        """See Layout."""
        kinds = ("weight", "bias") if self.has_bias else ("weight",)
        return [
            f"expert_{expert}.{name}.{kind}"
            for expert in range(module.num_experts)
            for name in (self.up, self.down)
            for kind in kinds
        ]

    def matrices(self, module: Any, parameters: Tensors) -> dict[str, torch.Tensor]:
        """See Layout."""

        def stack(name: str) -> torch.Tensor:
            return torch.stack([parameters[f"expert_{e}.{name}"] for e in range(module.num_experts)])

        found = {"up": stack(f"{self.up}.weight"), "down": stack(f"{self.down}.weight")}
        if self.has_bias:
            found |= {"up_bias": stack(f"{self.up}.bias"), "down_bias": stack(f"{self.down}.bias")}
        return found

    def inner(self, module: Any) -> Inner:
        """See Layout."""
        return lambda up, _: module["expert_0"].act(up)


LAYOUTS: tuple[Layout, ...] = (
    Llama4(),
    Dbrx(),
    Apart("SwitchTransformersExperts", "wi", "wo", False),
    Apart("NllbMoeExperts", "fc1", "fc2", True),
    Stacked(),
)


@dataclass(frozen=True)
class FoundExperts:
    """The experts of one layer of a model that has no weights yet."""

    description: ExpertModule
    module: nn.Module
    layout: Layout

    @property
    def path(self) -> str:
        """Where the module is in the model."""
        return self.description.path

    @property
    def parameter_names(self) -> list[str]:
        """Names in the model of the parameters that are experts."""
        return [f"{self.path}.{name}" for name in self.layout.parameters(self.module)]


def find_experts(model: nn.Module) -> list[FoundExperts]:
    """The experts of a model, in its order.

    Raises:
        UnsupportedModelError: there are none that we know, or their activation is not one of the core's.
    """
    found = list(_find(model))
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no experts that edgemoe knows; docs/transformers.md lists the model"
            " types that it runs"
        )
    return found


def shared_experts(model: Any, experts: list[FoundExperts]) -> dict[str, str]:
    """Modules whose weights are those of another: its path by theirs."""
    tied = model.all_tied_weights_keys
    paths = {name: found.path for found in experts for name in found.parameter_names}
    found = {}
    for module in experts:
        sources = {paths.get(tied.get(name)) for name in module.parameter_names}
        if len(sources) == 1 and (source := sources.pop()) is not None:
            found[module.path] = source
    return found


def _find(model: nn.Module) -> Iterator[FoundExperts]:
    activations: dict[str, str] = {}
    for path, module in model.named_modules():
        layout = next((layout for layout in LAYOUTS if layout.recognises(module)), None)
        if layout is None:
            continue
        named = dict(module.named_parameters())
        matrices = layout.matrices(module, {name: named[name] for name in layout.parameters(module)})
        num_experts, expert_width, width = matrices["up"].shape
        num_experts = min(num_experts, len(matrices["down"]))
        kind = f"{type(module).__name__} {getattr(module, 'limit', None)}"
        if kind not in activations:
            activations[kind] = find_activation(layout.inner(module), "gate" in matrices, path)
        description = ExpertModule(
            path,
            num_experts,
            width,
            expert_width,
            activations[kind],
            has_gate="gate" in matrices,
            has_bias="up_bias" in matrices,
        )
        yield FoundExperts(description, module, layout)
