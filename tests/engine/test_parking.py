"""Texts on disk: read back to the bit, found by how they begin, never more than the folder may hold."""

from __future__ import annotations

import os
import shutil
import time

import pytest

pytest.importorskip("torch")

from helpers.tiny_models import VOCAB_SIZE, write_checkpoint

import edgemoe
from edgemoe.convert import convert
from edgemoe.engine import parked_files, state_pool
from edgemoe.engine.parked_files import worth
from edgemoe.engine.parking import FEWEST_TOKENS
from edgemoe.engine.scheduler import Cancelled
from edgemoe.errors import RequestError
from edgemoe.quant import BitPlan
from edgemoe.units import MIB

CONTEXT = 120
LONG = 60
OPTIONS = {"max_tokens": 10, "temperature": 0.8, "seed": 3, "logit_bias": {0: -100.0}}


def prompt(start, length=LONG):
    """A text that no other start has in common with."""
    return [3 + (start + 7 * i) % (VOCAB_SIZE - 3) for i in range(length)]


@pytest.fixture(scope="module", params=["qwen3", "qwen3-window", "lfm2"])
def store(request, tmp_path_factory):
    """Keys and values of all tokens; of a window; and a state that cannot go back."""
    folder = tmp_path_factory.mktemp(request.param)
    convert(
        write_checkpoint(folder / "checkpoint", request.param), folder / "store", BitPlan.uniform("q8", "q8")
    )
    return folder / "store"


@pytest.fixture(scope="module")
def plain_store(tiny_store):
    return tiny_store


class Host:
    """A model that parks its texts, as a server has it."""

    def __init__(self, store, folder, max_bytes=MIB * 64, **options):
        self.model = edgemoe.load(store, "2GiB", context=CONTEXT, **options)
        engine = self.model.engine
        self.parking = engine.session.parking(folder, max_bytes, engine.weights_id)

    def answer(self, token_ids, **options):
        """An answer, and how many tokens of its prompt were known."""
        wanted = OPTIONS | options
        self.parking.fetch(token_ids, len(token_ids) + wanted["max_tokens"], lambda: False)
        found = self.model.generate(token_ids, **wanted)
        return found.token_ids, found.num_cached_tokens

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.model.close()


def parked(folder):
    return sorted(folder.glob("*/*.state"))


def test_a_conversation_goes_on_after_a_restart(store, tmp_path):
    with Host(store, tmp_path) as host:
        first, _ = host.answer(prompt(0))
        turn = [*prompt(0), *first, 5, 6, 7]
        expected, known = host.answer(turn)
        assert known == LONG + len(first) - 1
        host.model.engine.session.forget()
        host.answer(prompt(0))
        host.parking.write()
        assert not host.parking.has_work
    with Host(store, tmp_path) as host:
        assert host.answer(turn) == (expected, known)
        assert (host.parking.num_hits, host.parking.num_tokens_saved) == (1, known)
        assert host.answer(prompt(40))[1] == 0


def test_side_prompts_cost_no_conversation_its_beginning(store, tmp_path):
    """There is room in memory for one text only, and two conversations take turns."""
    texts = [prompt(0), prompt(31)]
    with Host(store, tmp_path / "none") as alone:
        expected = []
        for i in (0, 1):
            text = texts[i]
            for _ in range(2):
                answer = alone.model.generate(text, **OPTIONS).token_ids
                text = [*text, *answer, 4]
                expected.append(answer)
    with Host(store, tmp_path) as host:
        answers = []
        for turn in range(2):
            for i in (0, 1):
                answer, known = host.answer(texts[i], max_tokens=10)
                assert known == (len(texts[i]) - 2 if turn else 0)
                texts[i] = [*texts[i], *answer, 4]
                answers.append(answer)
        assert host.parking.num_hits == 2
    assert [answers[0], answers[2], answers[1], answers[3]] == expected


def test_what_branches_off_is_of_use_where_states_can_go_back(store, tmp_path):
    with Host(store, tmp_path) as host:
        host.answer(prompt(0))
        host.parking.write()
    branch = [*prompt(0)[:50], *prompt(13, 20)]
    with Host(store, tmp_path) as host:
        expected = host.model.generate(branch, **OPTIONS).token_ids
        host.model.engine.session.forget()
        found, known = host.answer(branch)
        assert found == expected
        goes_back = host.model.engine.session._machinery.pool.reachable(LONG, 1) == 1
        assert known == (50 if goes_back else 0)


def test_a_longer_text_takes_the_place_of_its_beginning(plain_store, tmp_path):
    with Host(plain_store, tmp_path) as host:
        for length in (40, 60, 50):
            host.answer(prompt(0, length), max_tokens=1)
            host.parking.write()
        assert [path.name.partition("-")[2] for path in parked(tmp_path)] == ["60.state"]


def test_what_is_damaged_or_strange_is_passed_over(plain_store, tmp_path, caplog):
    with Host(plain_store, tmp_path) as host:
        for start in (0, 20, 40):
            host.answer(prompt(start))
            host.parking.write()
    flipped, cut, whole = sorted(parked(tmp_path), key=os.path.getmtime)
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-100])
    (cut.parent / "notes.txt").write_text("not ours")
    with Host(plain_store, tmp_path) as host:
        assert [host.answer(prompt(start))[1] for start in (0, 20, 40)] == [0, 0, LONG - 1]
    said = [record.message for record in caplog.records if record.name == "edgemoe.parking"]
    assert sum("not those that were written" in line for line in said) == 1
    assert sum(str(cut) in line for line in said) == 1
    assert sum("left alone" in line for line in said) == 1
    assert whole in parked(tmp_path)
    with Host(plain_store, tmp_path) as host:  # the others were read anew, and two of them written
        assert sum(host.answer(prompt(start))[1] == LONG - 1 for start in (0, 20, 40)) == 3
    assert (cut.parent / "notes.txt").read_text() == "not ours"


def test_files_of_another_store_are_not_looked_at(plain_store, tiny_checkpoint, tmp_path):
    other = tmp_path / "other"
    convert(tiny_checkpoint, other, BitPlan.uniform("q8", "q8"))
    for store in (plain_store, other):
        with Host(store, tmp_path / "parked") as host:
            assert host.answer(prompt(0))[1] == 0
            host.parking.write()
    assert len(parked(tmp_path / "parked")) == 2


def test_the_folder_is_bounded_and_loses_what_is_worth_least(plain_store, tmp_path, monkeypatch):
    with Host(plain_store, tmp_path) as host:
        host.answer(prompt(0))
        host.parking.write()
        size = host.parking.num_bytes
    bound = max(MIB, 3 * size)
    monkeypatch.setattr(parked_files, "MAX_TEXTS", 3)
    with Host(plain_store, tmp_path, bound) as host:
        for start in (10, 20):
            host.answer(prompt(start))
            host.parking.write()
        oldest = parked(tmp_path)[1]
        os.utime(oldest, (0, time.time() - 7 * 24 * 3600))
        host.answer(prompt(30))
        host.parking.write()
        assert oldest not in parked(tmp_path)
        assert len(parked(tmp_path)) == host.parking.num_texts == 3
        assert host.parking.num_bytes <= bound


def test_more_tokens_a_byte_and_younger_is_worth_more():
    assert worth(100, 1000, 0) > worth(100, 1000, 60) > worth(100, 1200, 60)


def test_short_texts_are_not_written(plain_store, tmp_path):
    with Host(plain_store, tmp_path) as host:
        host.answer(prompt(0, FEWEST_TOKENS - 12))
        assert not host.parking.has_work
        host.parking.write()
        assert not parked(tmp_path)


def test_a_folder_that_cannot_be_written_costs_no_answer(plain_store, tmp_path, caplog):
    with Host(plain_store, tmp_path) as host:
        (folder,) = tmp_path.iterdir()
        expected, _ = host.answer(prompt(0))
        folder.rmdir()
        folder.write_text("")
        host.parking.write()
        assert host.answer(prompt(0))[0] == expected
        assert host.parking.num_bytes == 0
    assert sum("not parked" in record.message for record in caplog.records) == 1


def test_a_folder_that_somebody_removes_is_made_again(plain_store, tmp_path):
    with Host(plain_store, tmp_path / "texts") as host:
        host.answer(prompt(0))
        host.parking.write()
        shutil.rmtree(tmp_path / "texts")
        assert host.parking.num_bytes == 0
        host.model.engine.session.forget()
        assert host.answer(prompt(0))[1] == 0  # it is not there, and nothing else happens
        host.parking.write()
        assert len(parked(tmp_path / "texts")) == 1


def test_a_file_in_the_folders_place_is_refused(plain_store, tmp_path):
    (tmp_path / "file").write_text("")
    with edgemoe.load(plain_store, "2GiB") as model, pytest.raises(RequestError, match="cannot be parked"):
        model.engine.session.parking(tmp_path / "file", MIB, model.engine.weights_id)


def test_a_text_that_is_being_written_keeps_its_room(plain_store, tmp_path, monkeypatch):
    monkeypatch.setattr(state_pool, "PAUSE_S", 0.01)
    with Host(plain_store, tmp_path, num_texts=2) as host:
        pool = host.model.engine.session._machinery.pool
        host.answer(prompt(0))
        (holding,) = pool.kept()
        assert pool.pin_kept(holding)
        copy = pool.borrow((), prompt(0, 20), 20)  # which may be copied meanwhile
        assert len(copy.token_ids) == 19
        assert len(holding.token_ids) > 19
        pool.unpin(copy)
        pool.give_back(copy, is_kept=False)
        other = pool.borrow((), prompt(50), CONTEXT)
        other.thread = -1  # another's, in its step
        asked = iter([False, False, True])
        with pytest.raises(Cancelled):
            pool.borrow((), prompt(70), CONTEXT, lambda: next(asked, True))
        assert not holding.is_lost
        pool.unpin(holding)
        assert not pool.borrow((), prompt(70), CONTEXT, lambda: next(asked, True)).is_lost
        assert holding.is_lost
        assert not pool.pin_kept(holding)
        pool.unpin(other)
