"""How a store is given to transformers: as a quantization configuration with its quantizer.

While a model is loaded its experts are on torch's meta device, that is without memory. They are replaced
before weights are read, so that transformers finds no parameter for the experts' tensors and passes them
over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from edgemoe.engine.machine import resident_bytes
from edgemoe.errors import StoreError
from edgemoe.experts import DEFAULT_POLICY, NoPredictor
from edgemoe.integrations.transformers.conversion import num_trunk_bytes
from edgemoe.integrations.transformers.layouts import FoundExperts, find_experts, shared_experts
from edgemoe.integrations.transformers.modules import StoredExperts, stand_in
from edgemoe.integrations.transformers.options import DEFAULT_RESERVE_BYTES, check_options
from edgemoe.integrations.transformers.routers import build_predictor, find_top_k
from edgemoe.integrations.transformers.runtime import open_runtime, plan_cache
from edgemoe.store import Store
from edgemoe.store.expert_modules import ExpertModule, ExpertModules, read_expert_modules
from edgemoe.store.store import open_store

METHOD = "edgemoe"
# A trunk in 16 bits has a landmark's numbers to this.
_LANDMARK_TOLERANCE = 0.01


@register_quantization_config(METHOD)
class EdgeMoEConfig(QuantizationConfigMixin):
    """Experts of a model come from a store.

    Args:
        store: folder that ``edgemoe convert SRC OUT --experts-only`` made, or its name.
        memory: what the whole process may take, such as "8GiB", or bytes. The expert cache gets what the
            other weights and ``reserve`` leave. Default: what is free, minus a margin.
        cache: cap on the expert cache.
        reserve: kept free for torch's activations, keys and values.
        policy, predictor, reader, verify: as ``edgemoe.load``; predictors are "gate" and "none".

    Raises:
        RequestError: an option has no such value.
    """

    def __init__(
        self,
        store: str | Path,
        memory: str | int | None = None,
        *,
        cache: str | int | None = None,
        reserve: str | int = DEFAULT_RESERVE_BYTES,
        policy: str = DEFAULT_POLICY,
        predictor: str = "auto",
        reader: str = "auto",
        verify: str = "always",
        quant_method: str = METHOD,
    ) -> None:
        check_options(memory, cache, reserve, policy, predictor, reader, verify)
        self.quant_method: Any = quant_method
        self.store = str(store)
        self.memory, self.cache, self.reserve = memory, cache, reserve
        self.policy, self.predictor, self.reader, self.verify = policy, predictor, reader, verify


@register_quantizer(METHOD)
class EdgeMoEQuantizer(HfQuantizer):
    """Replaces experts before weights are loaded, and opens the store when they are."""

    requires_calibration = False

    def __init__(self, quantization_config: EdgeMoEConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        given = quantization_config
        self._options = check_options(
            given.memory,
            given.cache,
            given.reserve,
            given.policy,
            given.predictor,
            given.reader,
            given.verify,
        )
        self._store: Store = open_store(given.store, experts_alone=True)
        self._modules: ExpertModules = read_expert_modules(self._store)
        self._paths: list[str] = []
        self._earlier_bytes = 0

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        found = find_experts(model)
        shared = shared_experts(model, found)
        own = [experts for experts in found if experts.path not in shared]
        layer_of = match_modules(own, self._modules, self._store)
        # By layer of the store: in another class of model the same layers may stand elsewhere.
        self._paths = sorted(layer_of, key=layer_of.__getitem__)
        for experts in found:
            layer = layer_of[shared.get(experts.path, experts.path)]
            model.set_submodule(experts.path, stand_in(experts, layer))
            for name in experts.parameter_names:
                model.all_tied_weights_keys.pop(name, None)
        passed_over = {rf"^(.*\.)?{re.escape(_tail(experts.path))}\." for experts in found}
        model._keys_to_ignore_on_load_unexpected = {
            *(model._keys_to_ignore_on_load_unexpected or ()),
            *passed_over,
        }
        self._earlier_bytes = resident_bytes()
        return model

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        described = self._modules.modules
        for path, module in zip(self._paths, described, strict=True):
            self._check_landmark(model, path, module)
        top_k = find_top_k(model, self._paths)
        sizes = [entry.num_bytes for entry in self._store.manifest.experts.values()]
        cache_bytes = plan_cache(self._options, sizes, top_k, self._earlier_bytes, num_trunk_bytes(model))
        predictor = (
            NoPredictor()
            if self._options.predictor == "none"
            else build_predictor(model, self._paths, [m.num_experts for m in described], top_k)
        )
        runtime = open_runtime(self._store, self._modules, self._options, cache_bytes, predictor, top_k)
        for experts in model.modules():
            if isinstance(experts, StoredExperts):
                experts.runtime = runtime
        model.edgemoe = runtime
        return model

    def _check_landmark(self, model: Any, path: str, module: ExpertModule) -> None:
        if not module.landmark:
            return
        name = f"{path.rpartition('.')[0]}.{module.landmark}"
        values = model.get_parameter(name).detach().float().cpu().numpy().reshape(-1)
        values = values[: len(module.landmark_values)]
        close = np.isclose(values, module.landmark_values, rtol=_LANDMARK_TOLERANCE, atol=1e-4)
        if not close.all():
            raise StoreError(
                f"{self._store.path}: its experts are of other weights than this model: {name} differs;"
                " convert this model with `edgemoe convert --experts-only`"
            )

    def is_serializable(self, **kwargs: Any) -> bool:
        """No: the experts are not in the model."""
        return False

    @property
    def is_trainable(self) -> bool:
        """So that a Trainer takes the model, which it needs to evaluate it; training is refused later."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """As ``is_trainable``, for a model without adapters."""
        return True


def match_modules(found: list[FoundExperts], modules: ExpertModules, store: Store) -> dict[str, int]:
    """Which layer of a store the experts of a model are, by their path.

    Raises:
        StoreError: the store is of another model.
    """
    layers: dict[str, int] = {}
    for experts in found:
        own = experts.description
        layer = _find_layer(own.path, modules)
        if layer is None or layer in layers.values():
            raise _other_model(store, modules, f"has no experts at {own.path}")
        of_store = modules.modules[layer]
        for name in ("num_experts", "width", "expert_width", "activation", "has_gate", "has_bias"):
            theirs, ours = getattr(of_store, name), getattr(own, name)
            if theirs != ours:
                raise _other_model(store, modules, f"{own.path}: {name} is {theirs}, not {ours}")
        layers[own.path] = layer
    if len(layers) != len(modules.modules):
        raise _other_model(
            store, modules, f"has {len(modules.modules)} layers with experts, not {len(layers)}"
        )
    return layers


def _find_layer(path: str, modules: ExpertModules) -> int | None:
    """By the path itself, or where another class has the layers elsewhere, by the part that both share."""
    paths = [module.path for module in modules.modules]
    if path in paths:
        return paths.index(path)
    alike = [layer for layer, other in enumerate(paths) if _tail(other) == _tail(path)]
    return alike[0] if len(alike) == 1 else None


def _tail(path: str) -> str:
    """A path from the first numbered module on: ``layers.3.mlp.experts``."""
    found = re.search(r"(^|\.)(\w+\.\d+\..*)$", path)
    return path if found is None else found[2]


def _other_model(store: Store, modules: ExpertModules, difference: str) -> StoreError:
    return StoreError(
        f"{store.path}: was made of another model ({modules.architecture}): {difference}; convert this model"
        " with `edgemoe convert --experts-only`"
    )
