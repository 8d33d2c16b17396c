"""The ends of writing a GGUF file, which all writers of tests share."""

from __future__ import annotations

from collections.abc import Mapping

import gguf
import numpy as np


def add_stacks(writer: gguf.GGUFWriter, stacks: Mapping[str, Mapping[int, np.ndarray]]) -> None:
    """A tensor in single precision for each name, of matrices by the number of their expert."""
    for name, parts in stacks.items():
        writer.add_tensor(name, np.stack([parts[e] for e in range(len(parts))]).astype(np.float32))


def finish(writer: gguf.GGUFWriter) -> None:
    """Write the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
