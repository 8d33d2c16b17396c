"""A text's state in a file: read once in its life, refused where it does not belong."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("torch")

from helpers.tiny_models import FAMILIES, VOCAB_SIZE, write_checkpoint
from helpers.tiny_switch import write_switch

import edgemoe
from edgemoe.convert import convert
from edgemoe.errors import CorruptStoreError, RequestError, StoreError
from edgemoe.quant import BitPlan

CONTEXT = 80
PROMPT = [3 + 7 * i % (VOCAB_SIZE - 3) for i in range(40)]
OPTIONS = {"max_tokens": 12, "temperature": 0.8, "seed": 3}


@pytest.fixture(scope="module", params=[*sorted({*FAMILIES, "qwen3-window", "qwen3.5", "lfm2"}), "switch"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write = write_switch if request.param == "switch" else write_checkpoint
    kind = "base" if request.param == "switch" else request.param
    convert(write(folder / "checkpoint", kind), folder / "store", BitPlan.uniform("q8", "q8"))
    return folder / "store"


def load(store, **options):
    return edgemoe.load(store, "2GiB", context=CONTEXT, **options)


def test_another_process_goes_on_where_the_text_was_saved(store, tmp_path):
    with load(store) as model:
        expected = model.generate(PROMPT, **OPTIONS).token_ids
        has_encoder = model.spec.has_encoder
    with load(store) as model:
        model.save_state(tmp_path / "state", PROMPT)
        assert model.generate(PROMPT, **OPTIONS).token_ids == expected
    with load(store) as model:
        assert model.load_state(tmp_path / "state") == len(PROMPT) - (not has_encoder)
        answer = model.generate(PROMPT, **OPTIONS)
        assert answer.token_ids == expected
        assert answer.num_cached_tokens == len(PROMPT) - (not has_encoder)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_longer_prompt_that_begins_so_is_read_from_there(store, tmp_path):
    longer = [*PROMPT, 5, 6, 7, 8]
    with load(store) as model:
        expected = model.generate(longer, **OPTIONS).token_ids
        if model.spec.has_encoder:
            pytest.skip("an encoder reads a prompt as a whole")
    with load(store) as model:
        model.save_state(tmp_path / "state", PROMPT)
    with load(store) as model:
        model.load_state(tmp_path / "state")
        answer = model.generate(longer, **OPTIONS)
    assert (answer.token_ids, answer.num_cached_tokens) == (expected, len(PROMPT) - 1)


def test_what_does_not_belong_is_refused_and_leaves_the_model_as_it_was(store, tmp_path):
    path = tmp_path / "state"
    with load(store) as model:
        model.save_state(path, PROMPT)
        data = path.read_bytes()
        for place in (len(data) // 2, len(data) - 1):
            damaged = bytearray(data)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(CorruptStoreError, match="not those that were written"):
                model.load_state(path)
        path.write_bytes(data[:-5])
        with pytest.raises(StoreError, match="cut off"):
            model.load_state(path)
        path.write_bytes(b"nothing of the kind")
        with pytest.raises(StoreError, match="state"):
            model.load_state(path)
        with pytest.raises(RequestError, match="cannot be read"):
            model.load_state(tmp_path / "absent")
        with pytest.raises(RequestError, match="cannot be written"):
            model.save_state(tmp_path / "absent" / "state", PROMPT)
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(RequestError, match="pipe cannot be written: it is there and is no file"):
            model.save_state(tmp_path / "pipe", PROMPT)
        assert (tmp_path / "pipe").is_fifo()
        with pytest.raises(RequestError, match="pipe cannot be read: it is there and is no file"):
            model.load_state(tmp_path / "pipe")
        path.write_bytes(data)
        assert model.load_state(path)
    with (
        load(store, kv_format="f32") as model,
        pytest.raises(StoreError, match="keys and values in f16"),
    ):
        model.load_state(path)
    with edgemoe.load(store, "2GiB", context=8) as model, pytest.raises(RequestError, match="do not fit"):
        model.load_state(path)


def test_a_state_of_another_store_is_refused(tmp_path, tiny_checkpoint):
    for name in ("q4", "q8"):
        convert(tiny_checkpoint, tmp_path / name, BitPlan.uniform(name, "q8"))
    with load(tmp_path / "q4") as model:
        model.save_state(tmp_path / "state", PROMPT)
    with load(tmp_path / "q8") as model, pytest.raises(StoreError, match="another store"):
        model.load_state(tmp_path / "state")


def test_a_state_has_any_name_and_a_link_stays(tmp_path, tiny_store):
    (tmp_path / "disk").mkdir()
    link, long = tmp_path / "link", tmp_path / ("n" * 255)
    link.symlink_to(tmp_path / "disk" / "state")
    with load(tiny_store) as model:
        for path in (link, long, link):  # the second time it is there
            model.save_state(path, PROMPT)
            assert model.load_state(path) == len(PROMPT) - 1
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "link", long.name, "state"]


def test_who_keeps_the_error_of_a_save_keeps_no_room(tmp_path, tiny_store):
    """As notebooks do; an open text has its room until somebody else waits for it."""
    with load(tiny_store, num_texts=1) as model:
        kept = []
        for _ in range(3):
            with pytest.raises(RequestError, match="cannot be written") as caught:
                model.save_state(tmp_path / "absent" / "state", PROMPT)
            kept.append(caught.value)
        assert not model.engine.session._machinery.pool._held.lent
