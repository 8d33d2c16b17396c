"""A GGUF file run as it is: the tokens of its store at any budget, and what is done about damage."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")
from gguf import GGMLQuantizationType as Type
from gguf import GGUFEndian
from helpers.gguf_files import write_gguf
from helpers.gguf_vocabularies import write_model
from helpers.tiny_models import write_checkpoint
from tokenizers.pre_tokenizers import ByteLevel

import edgemoe
from edgemoe import native
from edgemoe.convert import convert, open_gguf, open_runnable, plan_as_stored
from edgemoe.errors import (
    BudgetError,
    CheckpointError,
    ConversionError,
    CorruptStoreError,
    ExpertReadError,
    RequestError,
    StoreError,
)
from edgemoe.store import BlockMap, checksum, open_store

PROMPT = list(range(3, 20))
WIDE = {"hidden_size": 256, "moe_intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 64}


def mixed_types(name):
    if "ffn_down" in name:
        return Type.Q6_K if "blk.0" in name else Type.IQ2_S
    return Type.Q4_K if "exps" in name else Type.Q8_0


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgemoe" / "gguf"


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("wide"), "qwen3", **WIDE)


@pytest.fixture
def file(wide, tmp_path):
    return write_gguf(wide, tmp_path / "model.gguf", mixed_types)


def records(store):
    """The bytes of every expert, as its reader gives them."""
    reader = store.open_expert_reader()
    found = {}
    for key, entry in store.manifest.experts.items():
        buffer = native.aligned_empty(entry.num_bytes)
        buffer[:] = 0xAA
        reader.wait(reader.submit(store.file_index(entry), entry.offset, buffer))
        found[key] = buffer.tobytes()
    reader.close()
    return found


def answer(path, **options):
    with edgemoe.load(path, context=64, **options) as model:
        return model.generate(PROMPT, max_tokens=12).token_ids, model.logits(PROMPT)


@pytest.mark.parametrize("form", [{}, {"split_tensors": 7}])
def test_records_are_those_of_the_store(wide, tmp_path, form):
    path = write_gguf(wide, tmp_path / "model.gguf", mixed_types, **form)
    convert(path, tmp_path / "store", plan_as_stored(path))
    assert records(open_runnable(path)) == records(open_runnable(tmp_path / "store"))


@pytest.mark.parametrize("reader", ["auto", "buffered"])
def test_answers_are_those_of_the_store_at_any_budget(file, tmp_path, reader):
    convert(file, tmp_path / "store", plan_as_stored(file))
    tokens, logits = answer(tmp_path / "store", memory="4GiB")
    for cache in (None, "1MiB"):
        own_tokens, own_logits = answer(file, memory="4GiB", cache=cache, reader=reader)
        assert own_tokens == tokens
        assert np.array_equal(own_logits, logits)


def test_it_is_prepared_once_and_anew_when_the_file_has_changed(file, cache):
    first = open_gguf(file).path
    written = (first / "edgemoe.json").stat().st_mtime_ns
    assert open_gguf(file).path == first
    assert (first / "edgemoe.json").stat().st_mtime_ns == written
    os.utime(file, ns=(1, 1))
    second = open_gguf(file).path
    assert second != first
    assert [folder.name for folder in cache.iterdir()] == [second.name]


def test_what_was_prepared_and_is_damaged_is_prepared_again(file):
    folder = open_gguf(file).path
    for name in ("edgemoe.json", "blocks.json", "dense.safetensors"):
        (folder / name).write_bytes(b"{}")
        assert records(open_gguf(file))


def test_experts_that_change_after_their_first_read_are_refused(file):
    sound = records(open_gguf(file))
    answer(file, memory="4GiB")
    store = open_gguf(file)
    read = {key for key in sound if store.expert_checksum(key)}
    assert len(read) > 4
    assert all(checksum(sound[key]) == f"{store.expert_checksum(key):016x}" for key in read)
    # A line that a crash has torn is forgotten.
    lines = store.path / "first-reads.txt"
    whole = lines.read_text()
    lines.write_text(whole + "0.1 12ab")
    answer(file, memory="4GiB")
    # Other bytes with the same size and time: what the disk may do.
    time = file.stat().st_mtime_ns
    blocks = BlockMap.from_json((store.path / "blocks.json").read_text())
    data = bytearray(file.read_bytes())
    for _, slices in blocks.records:
        data[slices[1].offset + 20] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(time, time))
    with pytest.raises(CorruptStoreError, match="is not what it was when it was first read; fetch the file"):
        answer(file, memory="4GiB")
    assert answer(file, memory="4GiB", verify="never")


@pytest.mark.parametrize("reader", ["direct", "buffered"])
def test_a_file_that_changes_while_it_runs_is_refused(file, reader):
    """What no read has seen yet has no checksum: other weights of the same size would give other text."""
    data = bytearray(file.read_bytes())
    with edgemoe.load(file, "4GiB", context=64, reader=reader) as model:
        model.logits(PROMPT[:1])
        data[len(data) // 2 :] = bytes(byte ^ 1 for byte in data[len(data) // 2 :])
        file.write_bytes(data)
        with pytest.raises(ExpertReadError, match="cannot be read: the file has changed since it was opened"):
            model.logits(PROMPT)
    answer(file, memory="4GiB")  # opened anew, it is a model of its own


def test_a_file_that_is_replaced_while_it_is_loaded_is_refused(file):
    store = open_gguf(file)
    os.utime(file, ns=(1, 1))
    with pytest.raises(StoreError, match=f"{file.name}: has changed while it was opened; repeat the command"):
        store.open_expert_reader()


def test_a_file_that_is_renamed_over_leaves_the_model_as_it_was(file, tmp_path):
    expected = answer(file, memory="4GiB")
    with edgemoe.load(file, "4GiB", context=64) as model:
        (tmp_path / "other").write_bytes(b"GGUF")
        (tmp_path / "other").replace(file)
        assert model.generate(PROMPT, max_tokens=12).token_ids == expected[0]


def test_the_second_of_two_that_prepare_a_file_waits_for_the_first(file, cache):
    """Each of them would otherwise be told to wait by a command that nobody expects to write."""
    code = """import sys, edgemoe
with edgemoe.load(sys.argv[1], "1GiB", context=64) as model:
    print(model.generate([3, 4], max_tokens=4).token_ids)"""
    command = [sys.executable, "-c", code, str(file)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {child.communicate(timeout=120)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(said) == 1
    assert len(list(cache.iterdir())) == 1


def test_weights_that_are_not_finite_and_files_that_end_are_read_errors(file):
    blocks = BlockMap.from_json((open_gguf(file).path / "blocks.json").read_text())
    place = blocks.records[0][1][0].offset
    with file.open("r+b") as changed:
        changed.seek(place)
        changed.write(b"\x00\x7c")
    store = open_gguf(file)
    reader = store.open_expert_reader()
    entry = store.manifest.experts[0, 0]
    buffer = native.aligned_empty(entry.num_bytes)
    with pytest.raises(OSError, match="weights that are not finite"):
        reader.wait(reader.submit(0, entry.offset, buffer))
    os.truncate(file, place)
    with pytest.raises(OSError, match="unexpected end of file"):
        reader.wait(reader.submit(0, entry.offset, buffer))
    reader.close()
    assert isinstance(store.read_error((0, 0), "a reason"), ExpertReadError)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.F32])
def test_experts_that_are_floats_are_run_as_well(wide, tmp_path, kind):
    path = write_gguf(wide, tmp_path / "model.gguf", lambda name: kind if "gate_exps" in name else Type.Q8_0)
    convert(path, tmp_path / "store", plan_as_stored(path))
    assert records(open_runnable(path)) == records(open_runnable(tmp_path / "store"))
    assert np.array_equal(answer(path, memory="4GiB")[1], answer(tmp_path / "store", memory="4GiB")[1])


@pytest.mark.parametrize(
    ("kind", "infinity"), [(Type.F16, b"\0\x7c"), (Type.BF16, b"\x80\x7f"), (Type.F32, b"\0\0\x80\x7f")]
)
def test_floats_that_are_infinite_are_read_errors(wide, tmp_path, kind, infinity):
    path = write_gguf(wide, tmp_path / "model.gguf", lambda name: kind if "exps" in name else Type.Q8_0)
    blocks = BlockMap.from_json((open_gguf(path).path / "blocks.json").read_text())
    with path.open("r+b") as changed:
        for _, (_, up, _) in blocks.records:
            changed.seek(up.offset + (up.num_rows * up.num_cols - 1) * len(infinity))
            changed.write(infinity)
    with pytest.raises(ExpertReadError, match="not finite"):
        answer(path, memory="4GiB")


def test_floats_of_another_order_of_bytes_are_converted_instead(tmp_path):
    tokens = sorted(ByteLevel.alphabet())
    path = write_model(tmp_path / "big.gguf", tokens, pre="llama-bpe", merges=None, endian=GGUFEndian.BIG)
    with pytest.raises(CheckpointError, match=r"\(F32\) cannot be run as it is; make a store"):
        open_gguf(path)


@pytest.mark.parametrize("name", ["sha256-6e4c38e1172f42fd", "MODEL.GGUF"])
def test_a_file_is_known_by_its_first_bytes(file, tmp_path, name):
    other = file.rename(tmp_path / name)
    assert answer(other, memory="4GiB")


def test_messages_name_the_file_and_not_what_was_prepared_of_it(file, tmp_path):
    link = tmp_path / "a link.gguf"
    link.symlink_to(file)
    assert open_runnable(link).name == str(link)
    with pytest.raises(RequestError, match=r"a link\.gguf has no layer that predicts further tokens"):
        edgemoe.load(link, memory="4GiB", draft="mtp")


def test_where_nothing_can_be_kept_is_one_line_with_a_remedy(file, tmp_path, monkeypatch):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(ConversionError, match=r"cannot be written.*; set XDG_CACHE_HOME to a folder"):
        edgemoe.load(file, memory="4GiB")


def test_a_folder_of_files_names_one(file):
    with pytest.raises(StoreError, match=r"it holds GGUF files: name the one to run, .*model\.gguf"):
        edgemoe.load(file.parent, memory="4GiB")


def test_a_store_is_opened_as_a_store(file, tmp_path):
    convert(file, tmp_path / "store", plan_as_stored(file))
    assert type(open_runnable(tmp_path / "store")) is type(open_store(tmp_path / "store"))


def test_a_file_is_inspected_as_its_store_and_its_smallest_budget_is_right(file, tmp_path):
    convert(file, tmp_path / "store", plan_as_stored(file))
    facts = edgemoe.inspect_store(file, edgemoe.InspectOptions("4GiB", context=64))
    of_store = edgemoe.inspect_store(tmp_path / "store")
    assert (facts.is_gguf, of_store.is_gguf) == (True, False)
    assert facts.store == str(file)
    for field in ("num_experts", "expert_bytes", "expert_formats", "dense_bytes", "max_context"):
        assert getattr(facts, field) == getattr(of_store, field), field
    smallest = facts.memory.smallest_num_bytes
    with pytest.raises(BudgetError):
        edgemoe.load(file, smallest - 2**20, context=64)
    assert answer(file, memory=smallest + 2**20)
    budgets = edgemoe.budgets_of(file)
    assert budgets.store == str(file)
    assert budgets.smallest_budget_bytes < budgets.resident_budget_bytes


def test_a_file_has_no_checksums_to_verify_and_no_place_for_what_a_trace_teaches(file, tmp_path):
    with pytest.raises(RequestError, match=r"model\.gguf: a GGUF file has no checksums to compare"):
        edgemoe.inspect_store(file, edgemoe.InspectOptions(verifies=True))
    with pytest.raises(StoreError, match="inspect and doctor take a GGUF file as it is, for all else"):
        edgemoe.trace_store(file, {"a": "text"}, tmp_path / "trace")


def test_a_file_has_the_perplexity_of_its_store(tmp_path):
    tokens = sorted(ByteLevel.alphabet())
    file = write_model(tmp_path / "words.gguf", tokens, pre="llama-bpe", merges=None)
    convert(file, tmp_path / "store", plan_as_stored(file))
    options = edgemoe.EvaluateOptions("4GiB")
    scores = [edgemoe.evaluate_text(path, "a" * 300, options) for path in (file, tmp_path / "store")]
    assert scores[0] == scores[1]
    assert scores[0].num_tokens == 299
