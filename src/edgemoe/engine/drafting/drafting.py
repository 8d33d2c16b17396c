"""Drafting for one loaded model: where drafts come from, and what all its answers have learnt of them."""

from __future__ import annotations

from collections.abc import Callable

from edgemoe.engine.drafting.drafter import Drafter, Room, TextDrafter
from edgemoe.engine.drafting.drafts import DraftCounts, Drafts, Experience
from edgemoe.engine.drafting.governor import StepShape, StepTimes
from edgemoe.engine.drafting.kinds import MEMORY, MODEL_MEMORY, Chances
from edgemoe.engine.drafting.model_drafter import DraftModel
from edgemoe.engine.drafting.mtp_drafter import MtpModel
from edgemoe.errors import RequestError
from edgemoe.models import ModelSpec
from edgemoe.store import Manifest

# "text" drafts what followed where the text's end stood before, "mtp" what a store's layer for further tokens
# predicts. "auto" is that where there is one and memory for all experts, else the text, or "none" where a
# model's rows depend on each other.
DRAFTS = ("auto", "none", "text", "mtp")
STORE = "store"  # what drafts is a small model of its own


class Drafting:
    """Begins the drafts of each answer. Any number of threads may use it."""

    def __init__(
        self,
        make_drafter: Callable[[Room], Drafter] | None,
        shape: StepShape,
        num_drafted: int | None = None,
        model: DraftModel | MtpModel | None = None,
    ) -> None:
        """``make_drafter``: one for each answer; None: nothing is drafted. ``num_drafted`` as in Drafts.

        ``model`` is closed with this.
        """
        self._make_drafter = make_drafter
        self._num_drafted = num_drafted
        self.model = model
        self._shape = shape
        self._shared: Experience | None = None
        self.totals = DraftCounts()

    def begin(self, room: Room) -> Drafts | None:
        """The drafts of an answer; None where there are none."""
        if self._make_drafter is None:
            return None
        drafter = self._make_drafter(room)
        if self._shared is None:
            memory = MEMORY if drafter.unguessed is None else MODEL_MEMORY
            chances = Chances(drafter.expected, memory=memory)
            self._shared = Experience(StepTimes(self._shape), chances, self.totals)
        return Drafts(drafter, self._shared, self._num_drafted)

    def close(self) -> None:
        """The model is closed: so is the one that drafts for it."""
        if self.model is not None:
            self.model.close()


def check_draft(spec: ModelSpec, name: str) -> None:
    """Refuse what ``--draft`` names where the model cannot have it.

    Raises:
        RequestError: there is no such draft, or the model cannot have any.
    """
    if name not in (*DRAFTS, STORE):
        raise RequestError(f"no draft {name!r}; choose one of {', '.join(DRAFTS)}")
    if name in ("text", "mtp", STORE) and not _can_draft(spec):
        raise RequestError(
            f"{spec.family} cannot try drafts: what its experts take of a token depends on the tokens before"
            " it in the step; leave the draft out"
        )


def build_drafting(
    spec: ModelSpec,
    manifest: Manifest,
    name: str,
    num_drafted: int | None = None,
    model: DraftModel | MtpModel | None = None,
) -> Drafting:
    """What ``--draft`` names, see DRAFTS; ``model`` is what drafts, if one does."""
    shape = step_shape(spec, manifest)
    if name == "none" or not _can_draft(spec):
        return Drafting(None, shape, num_drafted)
    if model is not None:
        return Drafting(model.drafter, shape, num_drafted, model)
    return Drafting(lambda _: TextDrafter(), shape, num_drafted)


def _can_draft(spec: ModelSpec) -> bool:
    return not any(spec.moe(layer).router.capacity for layer in spec.moe_layers)


def step_shape(spec: ModelSpec, manifest: Manifest) -> StepShape:
    """What a step of the decoder reads."""
    dense = sum(entry.num_bytes for entry in manifest.dense.values())
    if not spec.has_tied_head:
        dense -= manifest.dense["embed.weight"].num_bytes  # one row of it is read
    sizes: dict[int, list[int]] = {}
    for (layer, _), entry in manifest.experts.items():
        sizes.setdefault(layer, []).append(entry.num_bytes)
    routers = {layer: spec.moe(layer).router for layer in spec.decoder_moe_layers}
    expert_bytes = sum(router.top_k * sum(sizes[la]) / len(sizes[la]) for la, router in routers.items())
    widest = max(routers.values(), key=lambda router: router.num_experts / router.top_k)
    return StepShape(dense, expert_bytes, widest.num_experts, widest.top_k)
