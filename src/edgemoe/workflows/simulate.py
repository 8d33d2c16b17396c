"""What policies and predictors would do on a trace, without running the model: ``Simulation``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemoe import arguments
from edgemoe.calib.routing import BELADY, Setting, SimulatedRun, simulate
from edgemoe.calib.trace import Trace, read_trace
from edgemoe.engine.prediction import PREDICTORS, build_next_use, build_predictor, choose_predictor
from edgemoe.engine.stored_weights import check_store, read_dense_weights
from edgemoe.errors import RequestError
from edgemoe.experts import FORECAST, POLICIES, NextUse, NoPredictor, Predictor
from edgemoe.models import read_spec
from edgemoe.progress import ShowSteps, Tell, unheard, unseen
from edgemoe.store import Store, find_device, open_store

ALL = "all"


@dataclass(frozen=True)
class SimulateOptions:
    """What is replayed; checked when it is made.

    ``shares`` of the experts' bytes are in memory. ``policies`` and ``predictors`` are names, or "all" of
    them; all predictors but "none", and the policy "forecast", are those of ``store``. Storage is as fast as
    that of ``device``, and a layer computes for ``layer_s`` seconds a token.

    Raises:
        RequestError: a name, a share or a number is none.
    """

    shares: Sequence[float] = (0.1, 0.25, 0.5)
    policies: str | Sequence[str] = ALL
    predictors: str | Sequence[str] = ("none",)
    store: str | Path | None = None
    device: str = "nvme"
    layer_s: float = 0.001
    max_tokens: int = 2000

    def __post_init__(self) -> None:
        arguments.whole("max_tokens", self.max_tokens, 1)
        if not 0 <= arguments.number("layer_s", self.layer_s) < math.inf:
            raise RequestError(f"layer_s is {self.layer_s}; it must be a number of seconds from 0 on")
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise RequestError("--capacity: give shares of the experts such as 10%,25%,50%")
        _known(self.policies, list(POLICIES), "policy")
        names = _known(self.predictors, _PREDICTORS, "predictor")
        if self.store is None and names != ["none"]:
            raise RequestError("--predictor needs --store, the store that was traced")
        find_device(self.device)


_PREDICTORS = [name for name in PREDICTORS if name != "auto"]


class Simulation:
    """A trace with all that it is replayed with; ``run`` replays it."""

    def __init__(
        self, trace: str | Path, options: SimulateOptions | None = None, tell: Tell = unheard
    ) -> None:
        """``tell`` takes what people should know.

        Raises:
            RequestError: the store is not the one that was traced, or lacks what a policy needs.
            StoreError, TraceError: store or trace cannot be used.
        """
        self._options = options = options or SimulateOptions()
        traced = read_trace(Path(trace)).of_steps()
        store = None if options.store is None else _open_traced(Path(options.store), traced)
        self._policies, next_use = _policies(options.policies, store, tell)
        self._predictors = _predictors(options.predictors, store)
        num_tokens = min(options.max_tokens, traced.num_tokens)
        self._setting = Setting(traced, num_tokens, find_device(options.device), options.layer_s, next_use)

    @property
    def num_tokens(self) -> int:
        """Tokens that are replayed."""
        return self._setting.num_tokens

    def run(self, steps: ShowSteps = unseen) -> Iterator[SimulatedRun]:
        """Each share with Belady's optimum, which knows the future, then with every policy and predictor."""
        plan = [
            (share, policy, predictor)
            for share in self._options.shares
            for policy, predictor in [
                (BELADY, "none"),
                *((p, q) for p in self._policies for q in self._predictors),
            ]
        ]
        with steps("replaying", "runs") as advance:
            for done, (share, policy, name) in enumerate(plan, 1):
                predictor = self._predictors.get(name, NoPredictor())
                yield simulate(self._setting, share, policy, predictor, name)
                advance(done, len(plan))


def _known(names: str | Sequence[str], known: list[str], what: str) -> list[str]:
    """The names asked for."""
    if names == ALL:
        return known
    asked = [names] if isinstance(names, str) else list(names)
    unknown = next((name for name in asked if name not in known), None)
    if unknown is not None:
        raise RequestError(f"no {what} {unknown!r}; choose all, or some of {', '.join(known)}")
    return asked


def _open_traced(path: Path, trace: Trace) -> Store:
    store = open_store(path)
    spec = read_spec(store.config)
    check_store(spec, store)
    if [spec.moe(layer).router.num_experts for layer in spec.decoder_moe_layers] != trace.num_experts:
        raise RequestError(f"{path}: not the store that was traced")
    return store


def _policies(
    asked: str | Sequence[str], store: Store | None, tell: Tell
) -> tuple[list[str], NextUse | None]:
    """The policies asked for, and what "forecast" asks; it is none of "all" where nothing was fitted."""
    names = list(_known(asked, list(POLICIES), "policy"))
    next_use = None if store is None else build_next_use(read_spec(store.config), store, FORECAST)
    if next_use is None and FORECAST in names:
        if asked != ALL:
            raise RequestError("the policy 'forecast' needs --store, a store that `edgemoe fit` has run on")
        names.remove(FORECAST)
        tell("without the policy 'forecast', which needs --store, a store that `edgemoe fit` has run on")
    return names, next_use


def _predictors(asked: str | Sequence[str], store: Store | None) -> Mapping[str, Predictor]:
    """The predictors asked for; all but "none" are those of a store."""
    names = _known(asked, _PREDICTORS, "predictor")
    if store is None:
        return {"none": NoPredictor()}
    if names == ["none"]:
        return {"none": NoPredictor()}
    spec = read_spec(store.config)
    weights = read_dense_weights(spec, store)
    return {n: build_predictor(spec, weights, store, choose_predictor(store, n)) for n in names}
