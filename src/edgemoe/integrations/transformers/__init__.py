"""Models that transformers runs, with their experts in a store.

    from transformers import AutoModelForCausalLM
    from edgemoe.integrations.transformers import EdgeMoEConfig

    config = EdgeMoEConfig(store="qwen-experts.store", memory="8GiB")
    model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-30B-A3B", quantization_config=config)

The store is made by ``edgemoe convert SRC OUT --experts-only``, or by ``convert_experts``. All but the
experts is torch's: what transformers, pipelines, the Trainer and adapters do with a model they do with this
one. Needs ``edgemoe[transformers]``.
"""

from __future__ import annotations

from edgemoe.errors import RequestError

MIN_VERSION = "5.23"  # the one that is tested; weight conversions change between versions


def _check_version() -> None:
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise RequestError(
            f"edgemoe.integrations.transformers needs {error.name}: pip install 'edgemoe[transformers]'"
        ) from error
    found = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if found < tuple(map(int, MIN_VERSION.split("."))):
        raise RequestError(
            f"transformers {transformers.__version__} is too old; edgemoe needs {MIN_VERSION} or newer:"
            " pip install -U 'edgemoe[transformers]'"
        )


_check_version()

from edgemoe.integrations.transformers.conversion import convert_experts  # noqa: E402
from edgemoe.integrations.transformers.quantizer import EdgeMoEConfig  # noqa: E402

__all__ = ["EdgeMoEConfig", "convert_experts"]
