"""Layers that predict further tokens: drafts are what they mean, and answers are those without drafts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

from helpers.gguf_families import write_family_gguf
from helpers.gguf_hybrids import write_hybrid_gguf
from helpers.tiny_models import VOCAB_SIZE
from helpers.tiny_mtp import KINDS, write_mtp_checkpoint
from helpers.tolerances import F32_RELATIVE

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine.drafting import Room, model_drafter, mtp_drafter
from edgemoe.engine.loading import LoadOptions, load_engine
from edgemoe.errors import BudgetError, ExpertReadError, RequestError
from edgemoe.quant import BitPlan
from edgemoe.store import open_store

CONTEXT = 96
PROMPT = np.random.default_rng(5).integers(3, VOCAB_SIZE, 30).tolist()
GREEDY = {"max_tokens": 28, "logprobs": 2}
SEEDED = {"max_tokens": 28, "temperature": 0.9, "top_k": 5, "seed": 3, "repetition_penalty": 1.2}


@pytest.fixture(autouse=True)
def always_sure(monkeypatch):
    """Random weights give no token much: let them draft on nevertheless."""
    for module in (model_drafter, mtp_drafter):
        monkeypatch.setattr(module, "UNSURE", 0.0)


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A store of exact weights, and what its layer for further tokens predicts."""
    folder = tmp_path_factory.mktemp("mtp")
    reference = write_mtp_checkpoint(folder / "checkpoint", request.param)
    report = convert(folder / "checkpoint", folder / "store", BitPlan.uniform("f32", "f32"))
    assert report.passed_over == {}
    return folder / "store", reference


def load(store, draft="mtp", **options) -> edgemoe.Model:
    options = {"budget_bytes": 4 << 30, "context": CONTEXT, "num_drafted": 5, "draft": draft, **options}
    return edgemoe.Model(load_engine(open_store(store), LoadOptions(**options)))


@pytest.fixture
def seen(monkeypatch):
    """The logits (V,) by which tokens are guessed, as they come."""
    found = []

    def noting(logits):
        found.append(logits.copy())
        return likeliest(logits)

    likeliest = model_drafter.likeliest
    monkeypatch.setattr(mtp_drafter, "likeliest", noting)
    return found


def test_drafts_are_what_the_layer_predicts(made, seen):
    """After a prompt read in one piece or in several, and after drafts that were taken back."""
    store, reference = made
    with load(store, kv_format="f32") as model:
        session, token_ids = model.engine.session, list(PROMPT)
        session.drafts = drafts = model.engine.drafting.begin(Room(CONTEXT))
        text, _ = session.open(PROMPT, 40)
        text.follower = drafts.observe
        text.read(PROMPT[:11])
        text.read(PROMPT)
        for token_id in (5, 17, 4, 90):
            draft = drafts._drafter.draft(text.token_ids, token_id, 3)
            token_ids.append(token_id)
            expected = reference.drafts(token_ids, 3)
            assert len(seen) == 3
            for ours, theirs in zip(seen, expected, strict=True):
                assert np.abs(ours - theirs).max() <= F32_RELATIVE * np.abs(theirs).max()
            assert list(draft.token_ids) == [int(logits.argmax()) for logits in seen]
            seen.clear()
            text.step(token_id, draft.token_ids)  # some of which are taken back
        drafts.close()


@pytest.mark.parametrize("variation", KINDS)
def test_a_gguf_file_has_the_same_layer_as_the_folder(tmp_path, variation):
    """All but what the families' norms and embeddings say: bit by bit."""
    write_mtp_checkpoint(tmp_path / "folder", variation)
    write = write_hybrid_gguf if variation.startswith("qwen") else write_family_gguf
    file = write(tmp_path / "folder", tmp_path / "model.gguf")
    held = []
    for source in (tmp_path / "folder", file):
        report = convert(source, tmp_path / f"{source.name}.store", BitPlan.uniform("q4", "q8"))
        assert report.passed_over == {}
        mtp = open_store(tmp_path / f"{source.name}.store").manifest.mtp
        assert mtp is not None
        held.append([{k: entry.checksum for k, entry in part.items()} for part in (mtp.dense, mtp.experts)])
    assert held[0] == held[1]
    answers = []
    for source in (tmp_path / "folder", file):
        with load(tmp_path / f"{source.name}.store") as model:
            answers.append(model.generate(PROMPT, **GREEDY))
    assert answers[0].num_drafted == answers[1].num_drafted > 10
    assert answers[0].token_ids == answers[1].token_ids


def test_drafts_change_no_token(made):
    store, _ = made
    longer = [*PROMPT, 4, 5, 6]
    with load(store, "none") as model:
        expected = [model.generate(PROMPT, **options) for options in (GREEDY, SEEDED)]
        expected.append(model.generate(longer, **GREEDY))
    for cache in (None, 1 << 20):
        with load(store, cache_bytes=cache) as model:
            found = [model.generate(PROMPT, **options) for options in (GREEDY, SEEDED)]
            found.append(model.generate(longer, **GREEDY))
            assert all(answer.num_drafted > 10 for answer in found)
            assert model.stats().num_drafted == sum(answer.num_drafted for answer in found)
        for one, other in zip(expected, found, strict=True):
            assert (one.token_ids, one.text, one.logprobs) == (other.token_ids, other.text, other.logprobs)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    write_mtp_checkpoint(folder / "checkpoint", "glm4")
    convert(folder / "checkpoint", folder / "store", BitPlan.uniform("q4", "q8"))
    convert(folder / "checkpoint", folder / "without", BitPlan.uniform("q4", "q8"), keeps_mtp=False)
    return folder


def test_the_layer_is_a_part_of_the_store_and_of_the_plan(one):
    store, without = open_store(one / "store"), open_store(one / "without")
    assert without.manifest.mtp is None
    assert store.manifest.dense.keys() == without.manifest.dense.keys()
    assert store.manifest.experts.keys() == without.manifest.experts.keys()
    assert store.manifest.mtp is not None
    assert list(store.verify()) == []
    held = sum(entry.num_bytes for entry in store.manifest.mtp.experts.values())
    with load(one / "store") as model, load(one / "store", "none") as plain:
        items = {item.key: item.num_bytes for item in model.memory.items}
        assert items["draft_model"] > held
        assert "draft_model" not in {item.key for item in plain.memory.items}
        assert plain.memory.smallest_num_bytes < model.memory.smallest_num_bytes
        with pytest.raises(BudgetError, match="smallest budget that works"):
            load(one / "store", budget_bytes=plain.memory.smallest_num_bytes)
    with pytest.raises(RequestError, match="has no layer that predicts further tokens"):
        load(one / "without")


def test_damage_of_the_layer_is_found(one, tmp_path):
    import shutil

    copy = shutil.copytree(one / "store", tmp_path / "copy")
    entry = next(iter(open_store(copy).manifest.mtp.experts.values()))
    with (copy / entry.file).open("r+b") as file:
        file.seek(entry.offset + 5)
        byte = file.read(1)
        file.seek(entry.offset + 5)
        file.write(bytes([byte[0] ^ 1]))
    assert len(list(open_store(copy).verify())) == 1


def test_auto_takes_the_layer_where_all_experts_have_memory(one):
    with load(one / "store", "auto") as model:
        assert model.memory.is_resident
        assert any(item.key == "draft_model" for item in model.memory.items)
    with load(one / "store", "auto", cache_bytes=1 << 16) as model:
        assert not any(item.key == "draft_model" for item in model.memory.items)
        assert model.generate(PROMPT * 2, max_tokens=4).token_ids


def test_long_prompts_are_taken_in_as_they_are_read(one, seen, monkeypatch):
    """As if they had been short: only the rows that may be taken back wait."""
    found = []
    for most in (mtp_drafter.MOST_WAITING, 4):
        monkeypatch.setattr(mtp_drafter, "MOST_WAITING", most)
        with load(one / "store") as model:
            drafts = model.engine.drafting.begin(Room(CONTEXT))
            text, _ = model.engine.session.open(PROMPT, 40)
            text.follower = drafts.observe
            text.read(PROMPT)
            waiting = len(drafts._drafter._rows)
            found.append((waiting, drafts._drafter.draft(text.token_ids, 7, 3).token_ids))
            drafts.close()
    assert [waiting for waiting, _ in found] == [30, 16]
    assert found[0][1] == found[1][1]


def test_an_answer_without_room_or_with_a_failing_layer_goes_on(one, monkeypatch):
    with load(one / "store", "none") as model:
        expected = model.generate(PROMPT, **GREEDY).token_ids
    with load(one / "store") as model:
        mtp = model.engine.drafting.model
        whole = mtp.room.num_bytes
        stream = model.stream(PROMPT, **GREEDY)
        next(stream)
        assert mtp.room.num_bytes < whole
        mtp.room.claim(mtp.room.num_bytes)
        answer = model.generate(PROMPT, **GREEDY)
        assert (answer.token_ids, answer.num_drafted) == (expected, 0)
        stream.close()
        mtp.room.num_bytes = whole

        def fails(*_: object) -> None:
            raise ExpertReadError("in the middle of a draft")

        monkeypatch.setattr(mtp.layer, "step", fails)
        answer = model.generate(PROMPT, **GREEDY)
        assert (answer.token_ids, answer.num_drafted) == (expected, 0)
        assert mtp.room.num_bytes == whole
