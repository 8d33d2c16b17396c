"""What the feed-forward part of a layer is made of: a dense network, or a router with its experts.

Both kinds name their tensors and say what memory a step takes, as the specs of token mixers do
(``mixer_spec.py``). Letters: D model width, F expert width, E experts, K chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgemoe import native
from edgemoe.models.mixer_spec import TensorSpec, filled, filled_tensor


@dataclass(frozen=True)
class RouterSpec:
    """How K of E experts are chosen and weighted; ``score`` and what follows it as in native.Router.

    ``has_bias``: added to the logits; ``has_choice_bias``: added to the scores for the choice alone.
    ``has_input_scale``: the router sees the stream over its root mean square, times a vector and D^-0.5.
    ``capacity`` tokens of a text may choose an expert; those after them pass it by. 0: all may.
    """

    num_experts: int
    top_k: int
    score: str
    renormalize: bool = False
    has_bias: bool = False
    has_choice_bias: bool = False
    num_groups: int = 1
    kept_groups: int = 1
    groups_by_highest: bool = False
    sum_eps: float = 0.0
    is_eps_minimum: bool = False
    scale: float = 1.0
    has_expert_scale: bool = False
    has_input_scale: bool = False
    jitter: float = 0.0
    capacity: int = 0


@dataclass(frozen=True)
class ExpertSpec:
    """One expert: gate and up (F, D), down (D, F); without a gate the activation is that of up."""

    width: int
    activation: str
    is_gated: bool = True
    has_bias: bool = False  # of all matrices; the biases are dense weights: they are small

    @property
    def projections(self) -> tuple[str, ...]:
        """The names of its matrices, in the order in which they are stored."""
        return ("gate", "up", "down") if self.is_gated else ("up", "down")


@dataclass(frozen=True)
class MLPSpec:
    """A dense network, which every token uses: gate and up (width, D), down (D, width).

    Without a gate the activation is that of up. ``has_bias``: each of its matrices has one.
    """

    width: int
    activation: str
    is_gated: bool = True
    has_bias: bool = False

    def tensors(self, prefix: str, width: int, hidden_size: int) -> Iterator[TensorSpec]:
        """Its tensors where it is all of a layer's feed-forward part; ``prefix`` is the layer's."""
        yield from self.tensors_of(f"{prefix}.mlp", width)

    def tensors_of(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """Its tensors; their names begin with ``prefix``, its own."""
        shapes = _there_and_back(self.width, width, ("up", "down"))
        if self.is_gated:
            shapes = {"gate": shapes["up"], **shapes}
        for name, (shape, stored) in shapes.items():
            yield filled_tensor(f"{prefix}.{name}.weight", stored, shape)
            if self.has_bias:
                yield filled_tensor(f"{prefix}.{name}.bias", stored[:1], shape[:1], "precise")

    def working_bytes(self, num_rows: int, width: int) -> int:
        """Most bytes that a step of so many rows takes at one time besides the residual stream."""
        return native.expert_ffn_bytes(num_rows, width, filled(self.width), self.is_gated)


@dataclass(frozen=True)
class SharedExpertSpec(MLPSpec):
    """What every token uses beside its experts; several shared experts are one as wide as all of them.

    ``has_gate``: its output is weighted by the sigmoid of a product with the token's state.
    """

    has_gate: bool = False


@dataclass(frozen=True)
class MoESpec:
    """A router and its experts.

    ``beside``: a dense network that sees every token too. It has a norm of its own before it, and it and the
    experts have one each after them (Gemma 4). ``latent_width``: of the narrower vectors that experts get and
    give, which a matrix makes of the layer's and another makes into one again; 0 where experts are as wide as
    the model.
    """

    router: RouterSpec
    expert: ExpertSpec
    shared: SharedExpertSpec | None = None
    beside: MLPSpec | None = None
    latent_width: int = 0
    has_latent_bias: bool = False

    def tensors(self, prefix: str, width: int, hidden_size: int) -> Iterator[TensorSpec]:
        """Its tensors, but the experts' matrices; their names begin with ``prefix``, the layer's.

        Norms have ``hidden_size`` entries, rows of matrices ``width``.
        """
        num_experts = self.router.num_experts
        yield TensorSpec(f"{prefix}.router.weight", (num_experts, width), "precise")
        if self.router.has_bias:
            yield TensorSpec(f"{prefix}.router.bias", (num_experts,), "precise")
        if self.router.has_choice_bias:
            yield TensorSpec(f"{prefix}.router.choice_bias", (num_experts,), "precise")
        if self.router.has_input_scale:
            yield TensorSpec(f"{prefix}.router.input_scale", (hidden_size,), "precise")
        if self.beside is not None:
            yield from self.beside.tensors_of(f"{prefix}.mlp", width)
            for norm in ("dense_norm", "dense_post_norm", "expert_post_norm"):
                yield TensorSpec(f"{prefix}.{norm}.weight", (hidden_size,), "precise")
        if self.router.has_expert_scale:
            yield TensorSpec(f"{prefix}.router.expert_scale", (num_experts,), "precise")
        if self.latent_width:
            yield from self._latent_tensors(f"{prefix}.latent", width)
        if self.expert.has_bias:
            yield from self._expert_biases(f"{prefix}.experts", width)
        if self.shared is not None:
            yield from self.shared.tensors_of(f"{prefix}.shared", width)
            if self.shared.has_gate:
                yield TensorSpec(f"{prefix}.shared_gate.weight", (1, width), "precise")

    def _latent_tensors(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        for name, (shape, stored) in _there_and_back(self.latent_width, width, ("in", "out")).items():
            yield filled_tensor(f"{prefix}.{name}.weight", stored, shape)
            if self.has_latent_bias:
                yield filled_tensor(f"{prefix}.{name}.bias", stored[:1], shape[:1], "precise")

    def _expert_biases(self, prefix: str, width: int) -> Iterator[TensorSpec]:
        """Biases of all experts by projection, flat: rows of packed matrices must be multiples of 32."""
        for name in self.expert.projections:
            stored = (self.router.num_experts, width if name == "down" else self.expert.width)
            shape = (stored[0], filled(stored[1]))
            unfilled = None if stored == shape else stored
            yield TensorSpec(f"{prefix}.{name}_bias", (shape[0] * shape[1],), "precise", shape, unfilled)

    def working_bytes(self, num_rows: int, width: int) -> int:
        """Most bytes that a step of so many rows takes at one time besides the residual stream.

        The experts run after the shared expert, or after the network beside them.
        """
        router, expert = self.router, self.expert
        choice = 4 * num_rows * (router.num_experts + 2 * router.top_k)  # scores, experts and weights
        latent = filled(self.latent_width)
        experts = native.experts_working_bytes(
            num_rows, router.top_k, latent or width, filled(expert.width), expert.is_gated
        )
        taken = [experts + 2 * 4 * num_rows * latent]  # what goes into the narrower space and comes out
        if self.shared is not None:
            taken.append(self.shared.working_bytes(num_rows, width))
        if self.beside is not None:
            norms = 2 * 4 * num_rows * width  # before it and after it
            taken.append(norms + self.beside.working_bytes(num_rows, width))
        return choice + max(taken)


def _there_and_back(
    inner: int, width: int, names: tuple[str, str]
) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    """(Shape, shape in checkpoints) of matrices from the model's width to another and back."""
    there, back = names
    return {
        there: ((filled(inner), width), (inner, width)),
        back: ((width, filled(inner)), (width, inner)),
    }
