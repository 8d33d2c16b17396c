"""Our file: the store and the readers of its experts."""

from edgemoe.store.expert_reader import READER_KINDS, ExpertReader, MemoryReader, open_reader
from edgemoe.store.format import (
    VECTOR_FORMAT,
    DenseEntry,
    ExpertEntry,
    ExpertKey,
    Manifest,
    checksum,
    expert_matrices,
    expert_name,
    expert_num_bytes,
)
from edgemoe.store.layout import Place, StoreLayout, plan_layout
from edgemoe.store.store import Store, open_store
from edgemoe.store.writer import StoreWriter

__all__ = [
    "READER_KINDS",
    "VECTOR_FORMAT",
    "DenseEntry",
    "ExpertEntry",
    "ExpertKey",
    "ExpertReader",
    "Manifest",
    "MemoryReader",
    "Place",
    "Store",
    "StoreLayout",
    "StoreWriter",
    "checksum",
    "expert_matrices",
    "expert_name",
    "expert_num_bytes",
    "open_reader",
    "open_store",
    "plan_layout",
]
