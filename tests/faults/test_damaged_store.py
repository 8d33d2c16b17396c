"""A damaged store is refused with file, expert and offset; it is never computed with."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import edgemoe
from edgemoe.errors import (
    BudgetError,
    CorruptStoreError,
    ExpertReadError,
    NotAStoreError,
    RequestError,
    StoreError,
    StoreVersionError,
)
from edgemoe.store import open_store

EXPERTS = "experts-00000.safetensors"


def flip_bit(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def edit_manifest(folder, edit):
    path = folder / "edgemoe.json"
    fields = json.loads(path.read_text())
    edit(fields)
    fields.pop("checksum", None)  # as of a store of before, so that what is changed has to be found
    path.write_text(json.dumps(fields))


def test_flipped_bit_in_an_expert_is_found_when_it_is_used(store_copy):
    entry = open_store(store_copy).manifest.experts[1, 5]
    flip_bit(store_copy / EXPERTS, entry.offset + 100)
    message = rf"{EXPERTS}: layer 1 expert 5 at offset {entry.offset} differs from what was written"
    assert len(damages := list(open_store(store_copy).verify())) == 1
    assert f"layer 1 expert 5 at offset {entry.offset}" in damages[0]
    with edgemoe.load(store_copy, "2GiB", context=64) as model:
        with pytest.raises(CorruptStoreError, match=message):
            model.logits(list(range(60)))
        # The error leaves the model usable and the damaged expert unused.
        with pytest.raises(CorruptStoreError, match=message):
            model.logits(list(range(60)))


def test_flipped_bit_in_dense_weights_is_found_when_loading(store_copy):
    entry = open_store(store_copy).manifest.dense["layers.1.attention.q.weight"]
    flip_bit(store_copy / "dense.safetensors", entry.offset)
    with pytest.raises(CorruptStoreError, match=r"tensor layers\.1\.attention\.q\.weight at offset"):
        edgemoe.load(store_copy, "2GiB")


@pytest.mark.parametrize("name", ["dense.safetensors", EXPERTS, "tokenizer.json", "config.json"])
def test_truncated_and_missing_files_are_found_when_opening(store_copy, name):
    path = store_copy / name
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(CorruptStoreError, match=f"{name}: has .* bytes, was written with"):
        edgemoe.load(store_copy, "2GiB")
    path.unlink()
    with pytest.raises(CorruptStoreError, match=f"{name}: missing from the store"):
        edgemoe.load(store_copy, "2GiB")


def test_store_cut_short_while_running(store_copy):
    with edgemoe.load(store_copy, "2GiB", context=64) as model:
        with (store_copy / EXPERTS).open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(ExpertReadError, match=r"layer 0 expert .* at offset .* cannot be read"):
            model.logits([1, 2, 3])


@pytest.mark.parametrize("layer", [0, 2])
def test_experts_overwritten_while_running_are_never_computed_with(store_copy, layer):
    """Read once and evicted, an expert is read again: by then it may be another."""
    prompt = list(range(60))
    with edgemoe.load(store_copy, "2GiB", context=64, cache="64KiB") as model:
        before = model.logits(prompt)
        assert np.array_equal(model.logits(prompt), before)
        entry = open_store(store_copy).manifest.experts[layer, 3]
        with (store_copy / EXPERTS).open("r+b") as file:
            file.seek(entry.offset)
            file.write(bytes(64))
        with pytest.raises(CorruptStoreError, match=f"layer {layer} expert 3 at offset {entry.offset}"):
            model.logits(prompt)


def test_store_removed_while_running_keeps_working(store_copy):
    """The files stay open; what was opened can be read to the end."""
    with edgemoe.load(store_copy, "2GiB", context=64) as model:
        shutil.rmtree(store_copy)
        assert np.isfinite(model.logits([1, 2, 3])).all()


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda f: f.update(version=99), StoreVersionError, "store version 99"),
        (lambda f: f.update(layout=99), StoreVersionError, "layout 99"),
        (lambda f: f.pop("experts"), StoreError, "damaged manifest"),
        (lambda f: f["experts"]["0.0"].update(offset=1), StoreError, "impossible range"),
        (lambda f: f["experts"]["0.0"].update(num_bytes=1 << 40), StoreError, "impossible range"),
        (lambda f: f["experts"]["0.0"].update(num_bytes=1 << 60), StoreError, "not a number that can be"),
        (lambda f: f["experts"]["0.0"].update(file="/etc/passwd"), StoreError, "not the name of a file"),
        (
            lambda f: f["experts"]["0.0"].update(offset=f["experts"]["0.1"]["offset"]),
            StoreError,
            "overlapping ranges",
        ),
        (
            lambda f: f["experts"]["0.0"].update(formats=["q5_x", "q4", "q4"]),
            StoreVersionError,
            "format q5_x, which this program does not know; update edgemoe",
        ),
        (lambda f: f["experts"]["0.0"].update(formats=["Q5 ", "q4", "q4"]), StoreError, "damaged manifest"),
        # Rows of the tiny model are shorter than the 256 columns of such a block.
        (
            lambda f: f["experts"]["0.0"].update(formats=["q4_k", "q4_k", "q4_k"]),
            StoreError,
            "layer 0 expert 0 does not fit",
        ),
        (lambda f: f["experts"].pop("2.7"), StoreError, "layer 2 expert 7 does not fit config.json"),
        (
            lambda f: f["experts"]["2.7"].update(formats=["f32", "q4", "q4"]),
            StoreError,
            "layer 2 expert 7 does not fit",
        ),
        # A gate that one expert lacks, and one that all lack: records of one size hold either.
        (lambda f: f["experts"]["1.3"]["formats"].pop(), StoreError, "layer 1 expert 3 does not fit"),
        (
            lambda f: [entry["formats"].pop() for entry in f["experts"].values()],
            StoreError,
            "layer 0 expert 0 does not fit",
        ),
        (lambda f: f["dense"].pop("norm.weight"), StoreError, "tensor norm.weight does not fit"),
        (lambda f: f["files"].update({"gone.bin": 3}), CorruptStoreError, "missing from the store"),
    ],
)
def test_impossible_manifests_are_refused(store_copy, edit, error, message):
    edit_manifest(store_copy, edit)
    with pytest.raises(error, match=message):
        edgemoe.load(store_copy, "2GiB")


def test_garbage_manifest(store_copy):
    (store_copy / "edgemoe.json").write_text("{")
    with pytest.raises(StoreError, match="damaged manifest"):
        open_store(store_copy)
    (store_copy / "edgemoe.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match="damaged manifest"):
        open_store(store_copy)


def test_a_checkpoint_is_not_a_store(tiny_checkpoint, tmp_path):
    with pytest.raises(NotAStoreError, match="it is a checkpoint: run `edgemoe convert` first"):
        edgemoe.load(tiny_checkpoint)
    with pytest.raises(NotAStoreError, match=r"there is no edgemoe\.json"):
        edgemoe.load(tmp_path)
    with pytest.raises(NotAStoreError, match=r"there is no such folder$"):
        edgemoe.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["Qwen/Qwen3-30B-A3B", "unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M"])
def test_a_name_of_the_hub_that_is_not_here_says_how_to_fetch_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMOE_HOME", str(tmp_path))
    with pytest.raises(NotAStoreError, match=f"no such folder; if it is .*: edgemoe get {name}$"):
        edgemoe.load(name)


def test_a_checkpoint_without_tokenizer_runs_on_token_ids(tiny_checkpoint, tmp_path):
    from edgemoe.convert import convert
    from edgemoe.quant import BitPlan

    bare = shutil.copytree(tiny_checkpoint, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    report = convert(bare, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    assert not report.has_tokenizer
    with edgemoe.load(tmp_path / "store", "2GiB", context=64) as model:
        assert len(model.generate([1, 2, 3], max_tokens=4).token_ids) == 4
        with pytest.raises(RequestError, match=r"has no tokenizer\.json, so it takes token ids only"):
            model.generate("text")


def test_a_budget_that_cannot_work_names_one_that_does(tiny_store):
    with pytest.raises(BudgetError, match=r"the smallest budget that works is \d+MiB") as caught:
        edgemoe.load(tiny_store, "1MiB", context=64)
    with edgemoe.load(tiny_store, caught.value.smallest_num_bytes, context=64) as model:
        assert len(model.generate([5, 6], max_tokens=3).token_ids) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate(""), "the prompt is empty"),
        (lambda m: m.generate([]), "the prompt is empty"),
        (lambda m: m.generate([1, 99999]), "token id 99999 is outside the vocabulary of 320"),
        (lambda m: m.generate([-1]), "token id -1 is outside"),
        (lambda m: m.generate([1] * 65), "65 tokens do not fit the context of 64"),
        (lambda m: m.generate([1], temperature=-1), "temperature is -1"),
        (lambda m: m.generate([1], top_p=-1), "top_p is -1"),
        (lambda m: m.generate([1], max_tokens=0), "max_tokens is 0"),
        (lambda m: m.perplexity([1]), "at least two tokens"),
        (lambda m: m.perplexity([1, 2, 3], window=900), "window 900"),
    ],
)
def test_impossible_requests_are_refused_and_the_model_goes_on(tiny_store, call, message):
    with edgemoe.load(tiny_store, "2GiB", context=64) as model:
        with pytest.raises(RequestError, match=message):
            call(model)
        assert model.generate([1], max_tokens=1).num_prompt_tokens == 1


def test_a_step_that_cannot_be_made_leaves_the_text_as_it_was(tiny_store):
    with edgemoe.load(tiny_store, "2GiB", context=4) as model:
        session = model.engine.session
        session.prefill([1, 2, 3])
        with pytest.raises(RequestError, match="token id 320 is outside the vocabulary of 320"):
            session.step(320)
        session.step(4)
        with pytest.raises(RequestError, match="5 tokens do not fit the context of 4"):
            session.step(5)
        assert session.token_ids == [1, 2, 3, 4]


def test_a_closed_model_says_so(tiny_store):
    model = edgemoe.load(tiny_store, "2GiB", context=64)
    model.close()
    model.close()
    with pytest.raises(RequestError, match="the model is closed"):
        model.generate([1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "lots"}, "'lots' is not a size"),
        ({"context": 10**9}, "this model takes 1 to 128"),
        ({"kv_format": "q1"}, "choose one of f16, f32"),
        ({"policy": "crystal ball"}, "no eviction policy"),
        ({"reader": "telepathy"}, "no reader"),
        ({"verify": "maybe"}, "no verify mode"),
        ({"num_threads": 0}, "num_threads is 0"),
    ],
)
def test_unknown_options_are_refused(tiny_store, options, message):
    with pytest.raises(RequestError, match=message):
        edgemoe.load(tiny_store, **{"memory": "2GiB", **options})
