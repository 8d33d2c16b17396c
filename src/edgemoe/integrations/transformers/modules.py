"""Modules that stand where a model of transformers has its experts, and run those of a store.

They are called as the modules that they replace, and keep what these have besides experts, a norm after every
expert for example. Rows are handed to compiled code and back without a copy where torch computes in single
precision on the CPU.

Letters: T tokens, D width, K chosen, E experts, P pairs of a token and an expert.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from edgemoe.errors import RequestError
from edgemoe.integrations.transformers.layouts import Apart, FoundExperts, Llama4
from edgemoe.integrations.transformers.runtime import ExpertRuntime
from edgemoe.native import FloatArray, IntArray


class StoredExperts(nn.Module):
    """Experts that are chosen by ids (T, K) and weighted by (T, K)."""

    def __init__(self, found: FoundExperts, layer: int) -> None:
        super().__init__()
        self.num_experts = found.description.num_experts
        self.hidden_dim = found.description.width
        self._layer = layer
        self.runtime: ExpertRuntime | None = None
        for name, child in found.module.named_children():
            if not any(n.startswith(f"{name}.") for n in found.layout.parameters(found.module)):
                self.add_module(name, child)
        # transformers goes through parameters to give them first values, these too.
        for name in found.layout.parameters(found.module):
            if "." not in name:
                setattr(self, name, _placeholder())
        # Experts that hand on what they are given are numbered after those that compute.
        self._passes_on = hasattr(found.module, "identity_expert")

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"num_experts={self.num_experts}, width={self.hidden_dim}, from a store"

    def forward(
        self, hidden_states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """The weighted sum of the chosen experts' outputs for hidden states (..., D)."""
        shape = hidden_states.shape
        x = hidden_states.reshape(-1, shape[-1])
        chosen, weights = chosen.reshape(len(x), -1), weights.reshape(len(x), -1)
        norm = getattr(self, "post_expert_norm", None)
        if norm is not None:
            return self._run_normed(x, chosen, weights, norm).reshape(shape)
        beyond = chosen >= self.num_experts
        if not bool(beyond.any()):
            return self._run(x, chosen, weights).reshape(shape)
        out = self._run_pairs(x, *_pairs(chosen, weights, ~beyond))
        if self._passes_on:
            out = out + x * (weights * beyond).sum(dim=-1, keepdim=True).to(x.dtype)
        return out.reshape(shape)

    def _run_normed(
        self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, norm: nn.Module
    ) -> torch.Tensor:
        token, expert, weight = _pairs(chosen, weights, chosen < self.num_experts)
        ones = torch.ones(len(token), 1, dtype=weight.dtype, device=weight.device)
        outputs = norm(self._run(x[token], expert[:, None], ones)) * weight[:, None]
        return torch.zeros_like(x).index_add_(0, token, outputs.to(x.dtype))

    def _run_pairs(
        self, x: torch.Tensor, token: torch.Tensor, expert: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """The sum over pairs (P,), of any number for each token."""
        out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        if len(token):
            outputs = self._run(x[token], expert[:, None], weight[:, None])
            out.index_add_(0, token, outputs.float())
        return out.to(x.dtype)

    def _run(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        if self.runtime is None:
            raise RequestError("this model's experts are not there; load it with from_pretrained")
        if torch.is_grad_enabled() and (x.requires_grad or weights.requires_grad):
            return _WithoutGradient.apply(x, weights, chosen, self)  # type: ignore[no-any-return, no-untyped-call]
        return self.run(x, chosen, weights)

    def run(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The sum (T, D) as the store's experts compute it, in the type of x (T, D); no gradient."""
        assert self.runtime is not None, "run before the experts were loaded"
        if not len(x):
            return torch.zeros_like(x)
        expert_ids, shares = _numpy(chosen, torch.int32), _floats(weights)
        if len(x) == 1:
            expert_ids, shares = _once(expert_ids, shares)
        made = self.runtime.run(self._layer, _floats(x), expert_ids, shares)
        return torch.from_numpy(made).to(device=x.device, dtype=x.dtype)


class StoredWeightedExperts(StoredExperts):
    """Llama 4's: fed with a copy of all rows for each expert, zeros where it is not chosen."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Outputs (E T, D) for rows (E T, D); zeros stay zeros."""
        rows = hidden_states.ne(0).any(dim=-1).nonzero().squeeze(-1)
        out = torch.zeros_like(hidden_states)
        if len(rows):
            expert = torch.div(rows, len(hidden_states) // self.num_experts, rounding_mode="floor")[:, None]
            ones = torch.ones_like(expert, dtype=torch.float32)
            out[rows] = self._run(hidden_states[rows], expert, ones)
        return out


class StoredMaskedExperts(StoredExperts):
    """Those of Switch Transformers, which are chosen by a mask (T, K, E) and weighted by (T, K)."""

    def __getitem__(self, name: str) -> Any:
        """An expert without weights, which transformers gives first values."""
        matrix = SimpleNamespace(weight=_placeholder())
        return SimpleNamespace(wi=matrix, wo=matrix)

    def forward(
        self, hidden_states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """The weighted sum for hidden states (T, D); tokens that no expert took are zeros."""
        token, rank, expert = chosen.nonzero(as_tuple=True)
        return self._run_pairs(hidden_states, token, expert, weights[token, rank])


class StoredNllbExperts(StoredExperts):
    """Those of NLLB-MoE, as transformers runs them: by the numbers in a mask (T, E).

    transformers takes the mask's zeros and ones themselves for the experts' numbers. What it computes is
    computed here, with each expert once for a token.
    """

    def __init__(self, found: FoundExperts, layer: int) -> None:
        super().__init__(found, layer)
        module: Any = found.module
        self._kept = 1 - module.moe_token_dropout

    def forward(
        self, hidden_states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """The sum for hidden states (T, D), with weights (T, E)."""
        of_expert = torch.zeros_like(weights).scatter_add_(1, chosen, weights) * self._kept
        token, expert = of_expert.nonzero(as_tuple=True)
        return self._run_pairs(hidden_states, token, expert, of_expert[token, expert])


def stand_in(found: FoundExperts, layer: int) -> StoredExperts:
    """The module that takes the place of one that was found."""
    kind = StoredExperts
    if isinstance(found.layout, Llama4):
        kind = StoredWeightedExperts
    elif isinstance(found.layout, Apart):
        kind = StoredNllbExperts if found.layout.has_bias else StoredMaskedExperts
    return kind(found, layer)


class _WithoutGradient(torch.autograd.Function):
    """Runs experts where a gradient is recorded, and refuses when one is asked for."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor, experts: StoredExperts
    ) -> torch.Tensor:
        return experts.run(x, chosen, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RequestError(
            "experts that are run from a store have no gradient; train with the model as transformers loads"
            " it, and run what comes of it from a store"
        )


def _placeholder() -> torch.Tensor:
    """No numbers, marked as loaded."""
    found = torch.empty(0)
    found._is_hf_initialized = True  # type: ignore[attr-defined]
    return found


def _pairs(
    chosen: torch.Tensor, weights: torch.Tensor, taken: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token, expert and weight (P,) of the choices (T, K) that are taken."""
    token, rank = taken.nonzero(as_tuple=True)
    return token, chosen[token, rank], weights[token, rank]


def _once(expert_ids: IntArray, weights: FloatArray) -> tuple[IntArray, FloatArray]:
    """Each expert of a single token (1, K) once, which compiled code asks for; tables can name one twice."""
    unique, places = np.unique(expert_ids, return_inverse=True)
    if len(unique) == expert_ids.size:
        return expert_ids, weights
    return unique[None], np.bincount(places.reshape(-1), weights[0]).astype(np.float32)[None]


def _floats(values: torch.Tensor) -> Any:
    return _numpy(values, torch.float32)


def _numpy(values: torch.Tensor, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """The values in memory that compiled code can read; their own where type and place allow it."""
    return values.detach().to(device="cpu", dtype=dtype).contiguous().numpy()
