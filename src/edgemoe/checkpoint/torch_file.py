"""A file of torch.save: where each tensor lies, found without torch and without running anything.

Such a file is a zip archive whose `data.pkl` is a pickle of names and tensors, and whose entries `data/N`,
not compressed, are the memory of the tensors. A pickle can call any function; the one here may build
dictionaries and descriptions of tensors and nothing else, so that a file from a stranger can do no harm. It
is read by the interpreter written in Python, whose memory grows with the file and not with numbers in it.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from edgemoe.safetensors_header import TensorRange

# Names, places and shapes of the tensors of the largest models take a few megabytes.
_MAX_PICKLE_BYTES = 64 << 20
_MAX_ORDER_BYTES = 16
# More axes than tensors of weights have, and larger than any of these.
_MAX_AXES, _MAX_SIZE = 8, 1 << 50
_LOCAL_HEADER_BYTES = 30
_SUFFIX = "/data.pkl"
# Type and bytes of an element by torch's class of memory.
_STORAGES = {
    "FloatStorage": ("F32", 4), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2),
    "DoubleStorage": ("F64", 8), "LongStorage": ("I64", 8), "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1), "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Storage:
    """One entry of the archive: its key, and the type and number of its elements."""

    key: str
    dtype: str
    element_num_bytes: int
    num_elements: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor: consecutive elements of a storage, from ``first`` on."""

    storage: _Storage
    first: int
    shape: tuple[int, ...]


def read_torch_file(path: Path) -> Mapping[str, TensorRange]:
    """The tensors of a file by name.

    Raises:
        ValueError: not such a file, damaged, or with something in it that is no plain tensor.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tensors, root = _tensors(archive)
            starts = {
                tensor.storage.key: _start(path, archive, f"{root}/data/{tensor.storage.key}", tensor.storage)
                for tensor in tensors.values()
            }
    except (ValueError, OSError):
        raise
    except Exception as error:  # a damaged archive fails in every way there is
        raise ValueError(
            f"{path}: not a file that torch.save has written since 1.6 ({error}); fetch it again, or save it"
            " as safetensors"
        ) from error
    return {name: _range(tensor, starts[tensor.storage.key]) for name, tensor in tensors.items()}


def _tensors(archive: zipfile.ZipFile) -> tuple[dict[str, _Tensor], str]:
    """Every tensor by name, and the archive's top folder."""
    names = [name for name in archive.namelist() if name.endswith(_SUFFIX)]
    if len(names) != 1:
        raise zipfile.BadZipFile("no data.pkl")
    root = names[0].removesuffix(_SUFFIX)
    order = f"{root}/byteorder"
    if order in archive.namelist() and _entry(archive, order, _MAX_ORDER_BYTES) != b"little":
        raise ValueError(f"{archive.filename}: written on a machine of another byte order")
    program = _entry(archive, names[0], _MAX_PICKLE_BYTES)
    try:
        content = _Unpickler(io.BytesIO(program)).load()
    except Exception as error:  # a damaged pickle fails in every way there is
        raise ValueError(f"{archive.filename}: cannot be read as a list of tensors: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{archive.filename}: holds {type(content).__name__}, not tensors by name")
    strange = next((k for k, v in content.items() if not isinstance(v, _Tensor) or type(k) is not str), None)
    if strange is not None:
        raise ValueError(f"{archive.filename}: its entry {strange!r} is no tensor; save the weights alone")
    return content, root


def _entry(archive: zipfile.ZipFile, name: str, max_num_bytes: int) -> bytes:
    """A small entry, which like all of such a file is not compressed."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > max_num_bytes:
        raise ValueError(f"{archive.filename}: {name} is compressed, or larger than it can be")
    return archive.read(entry)


def _start(path: Path, archive: zipfile.ZipFile, name: str, storage: _Storage) -> int:
    """Where the data of an entry begins in the file."""
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{path}: there is no {name}; fetch it again") from None
    expected = storage.num_elements * storage.element_num_bytes
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != expected:
        raise ValueError(f"{path}: {name} has {entry.file_size} bytes, not {expected}, or is compressed")
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    # Its own lengths of name and padding, which differ from those of the directory at the end.
    start = entry.header_offset + _LOCAL_HEADER_BYTES
    start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    if len(header) < _LOCAL_HEADER_BYTES or start + expected > path.stat().st_size:
        raise ValueError(f"{path}: cut off inside {name}; fetch it again")
    return start


def _range(tensor: _Tensor, start: int) -> TensorRange:
    size = tensor.storage.element_num_bytes
    num_bytes = math.prod(tensor.shape) * size
    return TensorRange(tensor.storage.dtype, tensor.shape, start + tensor.first * size, num_bytes)


# The steps that torch's programs take, of protocols 2 to 5.
_STEPS = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT, pickle.BINUNICODE),
    *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1),
    *(pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BINPERSID),
)


class _Unpickler(pickle._Unpickler):
    """Knows dictionaries and tensors. The interpreter in C would take memory for numbers that a file names.

    Nothing gets attributes: those that torch adds to a dictionary of tensors (``_metadata``) are dropped.
    """

    stack: list[Any]

    def _drop_attributes(self) -> None:
        self.stack.pop()
        if not isinstance(self.stack[-1], OrderedDict):
            _refuse("it sets attributes of what is no dictionary")

    def _set_items(self) -> None:
        items = self.pop_mark()  # type: ignore[attr-defined]
        _put(self.stack[-1], items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], [key, value])

    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        **{step[0]: pickle._Unpickler.dispatch[step[0]] for step in _STEPS},
        pickle.BUILD[0]: _drop_attributes,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the few names that weights need."""
        if (module, name) == ("collections", "OrderedDict"):
            return _dictionary
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if module != "torch" or name not in _STORAGES:
            _refuse(f"it asks for {module}.{name}, which weights do not need")
        return _StorageClass(name)

    def persistent_load(self, pid: Any) -> _Storage:
        """One entry of the archive."""
        kind, storage_class, key, _, num_elements = pid
        if kind != "storage" or not isinstance(storage_class, _StorageClass) or type(key) is not str:
            _refuse("it refers to something that is no memory of a tensor")
        if type(num_elements) is not int or not 0 <= num_elements < _MAX_SIZE or "/" in key:
            _refuse("an impossible memory of a tensor")
        return _Storage(key, *_STORAGES[storage_class.name], num_elements)


@dataclass(frozen=True, slots=True)
class _StorageClass:
    name: str


def _dictionary(pairs: Sequence[Sequence[Any]] = ()) -> OrderedDict[Any, Any]:
    found: OrderedDict[Any, Any] = OrderedDict()
    _put(found, [part for key, value in pairs for part in (key, value)])
    return found


def _put(target: Any, items: Sequence[Any]) -> None:
    """Enter keys and values, in turn. Keys cannot nest: hashing what does has no bound."""
    keys = items[::2]
    if not isinstance(target, dict) or any(type(key) not in (str, int) for key in keys):
        _refuse("it fills what is no dictionary by names")
    target.update(zip(keys, items[1::2], strict=True))


def _tensor(
    storage: _Storage, first: int, shape: Sequence[int], strides: Sequence[int], *_: object
) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or len(shape) > _MAX_AXES:
        _refuse("an impossible tensor")
    if any(type(n) is not int or not 0 <= n < _MAX_SIZE for n in (first, *shape)):
        _refuse("an impossible tensor")
    expected = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    # The stride of an axis of one element says nothing.
    if any(n > 1 and have != want for n, have, want in zip(shape, strides, expected, strict=True)):
        _refuse("a tensor that is a view across another's rows; save a contiguous copy")
    if first + math.prod(shape) > storage.num_elements:
        _refuse("a tensor that is larger than its memory")
    return _Tensor(storage, first, tuple(shape))


def _parameter(data: _Tensor, *_: object) -> _Tensor:
    if not isinstance(data, _Tensor):
        _refuse("a parameter without a tensor")
    return data


def _refuse(what: str) -> NoReturn:
    raise pickle.UnpicklingError(what)
