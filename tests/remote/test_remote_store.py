"""Stores at a URL: the same tokens, nothing fetched in vain, and one clear line when the network fails."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from helpers.live_server import DEMO_STORE
from helpers.remote_server import NUM_TOKENS, PROMPT, SMALL

import edgemoe
from edgemoe.errors import CorruptStoreError, ExpertReadError, NotAStoreError, RequestError, StoreError
from edgemoe.store import open_store


def answer(url, **options):
    with edgemoe.load(url, **SMALL, **options) as model:
        return model.generate(PROMPT, max_tokens=NUM_TOKENS)


def test_tokens_are_those_of_the_local_store_with_and_without_a_tier(far, local_tokens):
    first = answer(far.url)
    assert first.token_ids == local_tokens
    assert first.far_bytes > 0
    again = answer(far.url)
    assert again.token_ids == local_tokens
    assert again.tier_bytes > 0
    assert again.far_bytes < first.far_bytes / 2
    none = answer(far.url, tier=0)
    assert none.token_ids == local_tokens
    assert none.tier_bytes == 0
    assert none.far_bytes >= none.bytes_read - none.wasted_bytes


def test_a_damaged_record_of_the_tier_is_read_anew(far, local_tokens, own_cache):
    answer(far.url)
    (path,) = own_cache.glob("*/tier-*/experts-00000.safetensors")
    # All that is there is wrong, whatever the index says.
    with path.open("r+b") as file:
        for entry in open_store(DEMO_STORE).manifest.experts.values():
            file.seek(entry.offset + 100)
            file.write(b"not what was written")
    found = answer(far.url)
    assert found.token_ids == local_tokens
    assert found.far_bytes > 0
    again = answer(far.url)
    assert again.token_ids == local_tokens
    assert again.tier_bytes > 0


def test_two_processes_at_once_share_a_tier(far, local_tokens):
    code = (
        f"import edgemoe\nwith edgemoe.load({far.url!r}, tier='2MiB', **{SMALL!r}) as model:\n"
        f"    print(model.generate({PROMPT!r}, max_tokens={NUM_TOKENS}).token_ids)"
    )
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [f"{local_tokens}\n"] * 2
    held = [file for file in os.scandir(open_store(far.url).tier_folder) if file.name != "index"]
    assert 0 < sum(file.stat().st_blocks * 512 for file in held) <= 2 << 20


def test_opening_fetches_no_weights_and_a_second_time_asks_for_the_manifest_alone(far, capsys):
    from edgemoe.cli.main import main

    assert main(["inspect", far.url, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["store"] == far.url
    assert shown["num_experts"] == 192
    names = [name for name, _, _ in far.server.log]
    assert "tokenizer.json" in names
    assert not [name for name in names if re.match(r"dense|experts", name)]
    far.server.log.clear()
    open_store(far.url)
    assert far.server.log == []


def test_inspecting_counts_the_reads_over_the_network_that_loading_does(far):
    shown = edgemoe.inspect_store(far.url, edgemoe.InspectOptions("2GiB")).memory
    with edgemoe.load(far.url, "2GiB") as model:
        planned, loaded = ({item.key: item.num_bytes for item in m.items} for m in (shown, model.memory))
    assert planned["reader"] == loaded["reader"] > 0


def test_a_path_that_lost_a_slash_is_the_same_address(far):
    from pathlib import Path

    assert open_store(Path(far.url)).name == far.url


def test_a_new_version_is_fetched_and_the_old_one_forgotten(far_copy, own_cache):
    old = open_store(far_copy.url)
    manifest = json.loads((far_copy.folder / "edgemoe.json").read_text())
    manifest["plan"] = {"kind": "another"}
    del manifest["checksum"]
    (far_copy.folder / "edgemoe.json").write_text(json.dumps(manifest))
    new = open_store(far_copy.url)
    assert new.manifest.plan == {"kind": "another"}
    assert not old.path.exists()
    assert new.tier_folder == old.tier_folder  # its experts are the same


def test_an_interrupted_fetch_of_dense_weights_goes_on(far, monkeypatch):
    from edgemoe.store.remote import copy

    monkeypatch.setattr(copy, "_PIECE_BYTES", 256 << 10)
    monkeypatch.setattr(copy, "_NUM_AT_ONCE", 1)
    store = open_store(far.url)
    far.server.log.clear()
    far.server.fault = lambda name, number: 404 if len(far.server.log) == 4 else None
    with pytest.raises(StoreError, match=r"dense\.safetensors: .*not there \(404\)"):
        store.read_dense()
    far.server.fault = lambda name, number: None
    tensors = store.read_dense()
    # A piece that was under way at the failure is fetched again, and no other.
    most = store.manifest.files["dense.safetensors"] + (256 << 10)
    assert far.server.num_bytes_of("dense.safetensors") <= most
    local = open_store(far.server.folders["demo"]).read_dense()
    assert all((tensors[name] == data).all() for name, data in local.items())


def test_dense_weights_that_arrived_damaged_are_fetched_once_more(far):
    store = open_store(far.url)
    faults = iter(["damage"])
    far.server.fault = lambda name, number: next(faults, None) if "dense" in name else None
    assert store.read_dense()
    far.server.fault = lambda name, number: "damage" if "dense" in name else None
    store._local.forget_dense()
    with pytest.raises(CorruptStoreError, match=r"/demo/dense\.safetensors: tensor .* upload the store anew"):
        store.read_dense()


def test_what_fails_for_a_moment_does_not_change_a_token(far, local_tokens):
    faults = itertools.cycle([500, None, "cut", None, 429, None, "reset", None, None, "damage", None, None])
    far.server.fault = lambda name, number: next(faults) if name.startswith("experts") else None
    with edgemoe.load(far.url, **SMALL, tier=0) as model:
        assert model.generate(PROMPT, max_tokens=NUM_TOKENS).token_ids == local_tokens
        assert model.engine.experts._reader._files.num_retries > 10


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (404, r"/demo: not a store, there is no edgemoe\.json: not there \(404\)"),
        (403, r"/demo: cannot be read: access denied \(403\); check the credentials"),
        (500, r"/demo: cannot be read: the server answered 500"),
        ("reset", r"/demo: cannot be read: no connection, or it broke off; check the network"),
    ],
)
def test_a_store_that_cannot_be_opened_is_refused_in_one_line(far, fault, line, capfd):
    from edgemoe.cli.main import main

    far.server.fault = lambda name, number: fault
    assert main(["run", far.url, "hello"]) == 2
    assert re.search(line, capfd.readouterr().err)


def test_no_network_is_said(far, capfd):
    with pytest.raises(StoreError, match="check the network"):
        open_store("http://127.0.0.1:9/demo")


def test_an_expert_that_cannot_be_had_is_named_with_its_address(far):
    reasons = {404: r"not there \(404\)", 403: "access denied", "cut": "broke off"}
    where = rf"{far.url}/experts-00000\.safetensors: layer \d+ expert \d+ cannot be read: .*"
    with edgemoe.load(far.url, **SMALL) as model:
        for fault, reason in reasons.items():
            far.server.fault = lambda name, number, fault=fault: fault
            with pytest.raises(ExpertReadError, match=where + reason):
                model.generate(PROMPT, max_tokens=NUM_TOKENS)
        far.server.fault = lambda name, number: None
        assert model.generate(PROMPT, max_tokens=2).token_ids


def test_an_object_that_was_replaced_is_said_to_be(far_copy):
    with edgemoe.load(far_copy.url, **SMALL, tier=0) as model:
        path = far_copy.folder / "experts-00000.safetensors"
        path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(
            CorruptStoreError, match="was replaced while it was being read; load the store again"
        ):
            model.generate(PROMPT, max_tokens=NUM_TOKENS)


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, whatever a command that ran in this process has made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_does_not_wait_for_the_network(far, interruptible):
    with edgemoe.load(far.url, **SMALL, tier=0) as model:
        interrupts = iter([signal.SIGINT])

        def stall(name, number):
            for number in interrupts:
                os.kill(os.getpid(), number)
            return "stall"

        far.server.fault = stall
        # The server answers no request until the test has ended.
        assert model.generate(PROMPT, max_tokens=NUM_TOKENS).finish_reason == "interrupted"
    assert not far.server.gate.is_set()


def test_a_verified_store_is_read_from_its_address(far_copy):
    store = open_store(far_copy.url)
    assert list(store.verify()) == []
    path = far_copy.folder / "experts-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[store.manifest.experts[2, 3].offset] ^= 1
    path.write_bytes(data)
    (damage,) = store.verify()
    assert damage.startswith(f"{far_copy.url}/experts-00000.safetensors: layer 2 expert 3")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("s3:bucket/store", "is no whole address; write it as s3://bucket/store"),
        ("s3://", "is no whole address"),
        ("htps://host/store", "htps:// is no place that stores are read from"),
        ("https://host/store?key=secret", "https://host/store: a store is a folder; leave out"),
        ("hf://alone", "names no repository of the Hub"),
    ],
)
def test_an_address_named_wrongly_gets_one_line(text, line):
    with pytest.raises(RequestError) as caught:
        open_store(text)
    assert line in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_name_with_a_colon_is_still_a_folder(tmp_path):
    with pytest.raises(NotAStoreError, match="there is no such folder"):
        open_store(tmp_path / "a:b")


def test_a_password_is_sent_and_never_told(far, capfd):
    from edgemoe.cli.main import main

    url = far.url.replace("//", "//user:pa55word@")
    assert main(["run", url, "a", "--max-tokens", "1", "--context", "64", "--threads", "1"]) == 0
    shown = "".join(capfd.readouterr())
    assert f"edgemoe run {far.url} --chat" in shown
    assert "pa55word" not in shown
    store = open_store(url)
    assert store.name == far.url
    assert far.server.passwords == {"Basic " + base64.b64encode(b"user:pa55word").decode()}
    store._local.forget_dense()
    far.server.fault = lambda name, number: 403
    with pytest.raises(StoreError) as caught:
        store.read_dense()
    assert "pa55word" not in str(caught.value)


def test_nothing_can_be_added_to_a_store_at_a_url(far, capfd):
    from edgemoe.cli.main import main

    assert main(["fit", "no-trace", "--out", far.url]) == 2
    assert "nothing can be added there; fit a copy on this disk" in capfd.readouterr().err


def test_a_tier_is_refused_where_nothing_is_far():
    with pytest.raises(RequestError, match=r"a tier .* is for stores at a URL"):
        edgemoe.load(DEMO_STORE, tier="1GiB")


def test_a_model_that_nobody_closes_ends_quietly(far, tmp_path):
    code = (
        f"import edgemoe; model = edgemoe.load({far.url!r}, **{SMALL!r}); model.generate('a', max_tokens=2)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
