"""llama.cpp's types at few bits in the same experiment as our widths: quality against bytes, by one program.

    python benchmarks/widths_llamacpp.py MODEL PROFILE --test FILE... -o docs/widths.json

Experts are quantised by llama.cpp's own code, told the mean square of every input of every expert on the
profile's text (its importance matrix, but for each expert), and read back by the gguf library; they are then
run as f32 by our engine and measured as in widths.py, whose rows these join. So llama.cpp's types have exact
activations here, where our formats round them to 8 bits. Its blocks have 256 columns: rows of other lengths
are laid end to end until blocks are full.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
from ggml import Ggml, find_ggml
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file
from widths import Rows, joined, quiet, read_windows

from edgemoe.calib.widths import Profile, ProfileOptions, compare
from edgemoe.calib.widths.calibration import read_facts
from edgemoe.calib.widths.quality import States
from edgemoe.checkpoint import SourceRef, open_checkpoint
from edgemoe.convert import convert
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.native import FloatArray
from edgemoe.quant import BitPlan, expert_grams
from edgemoe.store import open_store

TYPES = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K", "IQ4_XS", "Q4_K")
PROJECTIONS = ("gate", "up", "down")


def round_trip(
    ggml: Ggml, kind: GGMLQuantizationType, weights: FloatArray, importance: FloatArray
) -> FloatArray:
    """Weights (N, M) as they come back; ``importance`` (M,) is of the columns."""
    block_cols, block_bytes = GGML_QUANT_SIZES[kind]
    rows_together = block_cols // math.gcd(block_cols, weights.shape[1])
    if len(weights) % rows_together:
        raise SystemExit(f"{len(weights)} rows of {weights.shape[1]} fill no whole blocks of {kind.name}")
    laid = np.ascontiguousarray(weights.reshape(len(weights) // rows_together, -1))
    columns = np.ascontiguousarray(np.tile(importance, rows_together))
    packed = ggml.quantize(laid, int(kind), laid.shape[1] // block_cols * block_bytes, columns)
    return np.ascontiguousarray(dequantize(packed, kind).reshape(weights.shape), np.float32)


class Source:
    """The checkpoint's tensors as floats, and what each input of each expert is like."""

    def __init__(self, model: Path, profile: Profile) -> None:
        source = open_checkpoint(model)
        try:
            self.tensors = {name: source.read(SourceRef(name)) for name in source.tensors()}
        finally:
            source.close()
        self.keys = profile.ladder.keys
        self.importance = {key: self._importance(profile, key) for key in self.keys}

    def names(self, key: tuple[int, int]) -> dict[str, str]:
        """Of an expert's tensors, by projection."""
        return {p: f"model.layers.{key[0]}.mlp.experts.{key[1]}.{p}_proj.weight" for p in PROJECTIONS}

    def _importance(self, profile: Profile, key: tuple[int, int]) -> dict[str, FloatArray]:
        names = self.names(key)
        gate, up = (self.tensors[names[p]] for p in ("gate", "up"))
        x, counts = profile.inputs.rows(*key)
        activation = profile.ladder.spec.moe(key[0]).expert.activation
        grams = expert_grams(x, counts, [(gate, up)], activation)
        return {p: np.ascontiguousarray(np.diagonal(grams[p])) for p in PROJECTIONS}

    def rounded(self, ggml: Ggml, kind: GGMLQuantizationType) -> dict[str, FloatArray]:
        """All tensors, those of the experts as they come back from a type."""
        tensors = dict(self.tensors)
        for key in self.keys:
            for projection, name in self.names(key).items():
                importance = self.importance[key][projection]
                tensors[name] = round_trip(ggml, kind, tensors[name], importance)
        return tensors


def measure(
    rows: Rows, profile: Profile, source: Source, ggml: Ggml, model: Path, type_name: str, states: States
) -> None:
    kind = GGMLQuantizationType[type_name]
    block_cols, block_bytes = GGML_QUANT_SIZES[kind]
    num_weights = sum(profile.ladder.spec.num_expert_weights(layer) for layer, _ in source.keys)
    with tempfile.TemporaryDirectory(dir=".", prefix="edgemoe-benchmark-") as folder:
        copy = Path(folder) / "model"
        shutil.copytree(model, copy, ignore=shutil.ignore_patterns("*.safetensors", "*.png"))
        save_file(source.rounded(ggml, kind), copy / "model.safetensors", {"format": "pt"})
        convert(copy, Path(folder) / "store", BitPlan.uniform("f32", profile.options.dense_format))
        options = LoadOptions(None, profile.options.window, predictor="none", verify="never")
        engine = load_engine(open_store(Path(folder) / "store"), options)
        by_file = {f: compare(profile.reference, engine, w, states) for f, w in rows.tests.items()}
        engine.experts.close()
    num_bytes = num_weights * block_bytes // block_cols
    bits = 8 * block_bytes / block_cols
    rows.enter(f"llama.cpp {type_name}", num_bytes, bits, joined(by_file), by_file)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("profile", type=Path)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--test-tokens", type=int, default=18432)
    parser.add_argument("--types", nargs="+", default=TYPES, choices=TYPES)
    parser.add_argument("--out", "-o", type=Path, required=True)
    args = parser.parse_args()
    ggml = find_ggml()
    if ggml is None:
        raise SystemExit("needs pip install llama-cpp-python gguf")
    facts = read_facts(args.profile)
    options = ProfileOptions(facts["window"], facts["dense"])
    with Profile.make(args.model, args.profile, lambda _: facts["windows"], quiet, options) as profile:
        bf16, share = args.profile / "bf16", args.test_tokens // len(args.test)
        tests = {p.name.split(".")[0]: read_windows([p], share, bf16, options.window) for p in args.test}
        rows, source, states = Rows(profile, tests, args.out), Source(args.model, profile), {}
        for type_name in args.types:
            if f"llama.cpp {type_name}" not in rows:
                measure(rows, profile, source, ggml, args.model, type_name, states)


if __name__ == "__main__":
    main()
