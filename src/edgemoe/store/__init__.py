"""Our file: the store and the readers of its experts."""

from edgemoe.store.attach import attach_file
from edgemoe.store.block_store import (
    BLOCKS_FILE,
    NOT_YET_READ,
    VIRTUAL_FILE,
    BlockMap,
    BlockStore,
    open_block_store,
    stamp_of,
)
from edgemoe.store.expert_reader import (
    DEVICES,
    READER_KINDS,
    Device,
    ExpertReader,
    MemoryReader,
    Traffic,
    find_device,
    open_reader,
    traffic_of,
)
from edgemoe.store.format import (
    MTP_PREFIX,
    VECTOR_FORMAT,
    DenseEntry,
    ExpertEntry,
    ExpertKey,
    Manifest,
    MtpEntries,
    checksum,
    expert_matrices,
    expert_name,
    expert_num_bytes,
    expert_record,
)
from edgemoe.store.layout import Place, StoreLayout, plan_layout
from edgemoe.store.opening import open_store, shown_name
from edgemoe.store.store import Store, leave_out
from edgemoe.store.writer import StoreWriter

__all__ = [
    "BLOCKS_FILE",
    "DEVICES",
    "MTP_PREFIX",
    "NOT_YET_READ",
    "READER_KINDS",
    "VECTOR_FORMAT",
    "VIRTUAL_FILE",
    "BlockMap",
    "BlockStore",
    "DenseEntry",
    "Device",
    "ExpertEntry",
    "ExpertKey",
    "ExpertReader",
    "Manifest",
    "MemoryReader",
    "MtpEntries",
    "Place",
    "Store",
    "StoreLayout",
    "StoreWriter",
    "Traffic",
    "attach_file",
    "checksum",
    "expert_matrices",
    "expert_name",
    "expert_num_bytes",
    "expert_record",
    "find_device",
    "leave_out",
    "open_block_store",
    "open_reader",
    "open_store",
    "plan_layout",
    "shown_name",
    "stamp_of",
    "traffic_of",
]
