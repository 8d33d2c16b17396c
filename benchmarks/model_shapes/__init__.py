"""Known models by their shapes: the tensors of their GGUF files, and the keys that describe them.

Published sizes, from the configurations of their checkpoints; a file for each kind of model.
"""

from __future__ import annotations

from model_shapes.gemma4 import Gemma4
from model_shapes.glm47_flash import Glm47Flash
from model_shapes.gpt_oss import GptOss
from model_shapes.lfm2 import Lfm2
from model_shapes.parts import OUTPUT_GAIN, Shape, Tensor
from model_shapes.plain import Plain
from model_shapes.qwen35 import Qwen35

__all__ = ["OUTPUT_GAIN", "SHAPES", "Qwen35", "Shape", "Tensor"]

SHAPES: dict[str, Shape] = {
    "olmoe-1b-7b": Plain("olmoe", 16, 2048, 16, 16, 128, 1024, 1024, 64, 8, 50304, 1e4, 1e-5),
    "qwen3-30b-a3b": Plain("qwen3moe", 48, 2048, 32, 4, 128, 6144, 768, 128, 8, 151936, 1e6, 1e-6),
    "mixtral-8x7b": Plain("llama", 32, 4096, 32, 8, 128, 14336, 14336, 8, 2, 32000, 1e6, 1e-5),
    "qwen3.6-35b-a3b": Qwen35(),
    "gpt-oss-20b": GptOss(),
    "gemma-4-26b-a4b": Gemma4(),
    "glm-4.7-flash": Glm47Flash(),
    "lfm2-8b-a1b": Lfm2(),
}
