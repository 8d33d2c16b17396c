"""Models by name: fetched from a Hub on loopback, packed on the way, kept in the user's library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf")

from gguf import GGMLQuantizationType as Type
from helpers.gguf_files import write_gguf
from helpers.hub_server import Hub, serve
from helpers.tiny_models import write_checkpoint
from safetensors.numpy import load_file, save_file

from edgemoe.convert import convert
from edgemoe.engine.speed import forecast_speed
from edgemoe.models import read_spec
from edgemoe.quant import BitPlan
from edgemoe.store import open_store
from edgemoe.workflows.demo import demo_store

REPO = "tiny/qwen3"
PLAN = BitPlan.uniform("q4", "q8")


def shard(folder, count):
    """Write the weights as so many files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = list(tensors), {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        mine = names[number::count]
        save_file({name: tensors[name] for name in mine}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = write_checkpoint(tmp_path_factory.mktemp("hub") / "qwen3", "qwen3")
    shard(made, 3)
    (made / "README.md").write_text("a card")
    return made


@pytest.fixture
def hub(folder):
    made = Hub({REPO: folder})
    with serve(made) as address:
        made.address = address
        yield made


def edgemoe(hub, home, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "edgemoe", *arguments],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "XDG_CACHE_HOME": str(home / "cache"),
            "EDGEMOE_HOME": str(home / "edgemoe"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


def same_stores(a, b):
    first, second = open_store(a).manifest, open_store(b).manifest
    return first.experts == second.experts and first.dense == second.dense


def test_a_model_is_fetched_packed_listed_run_and_removed(hub, folder, tmp_path):
    done = edgemoe(hub, tmp_path, "get", REPO)
    assert done.returncode == 0, done.stderr
    assert "Qwen3-MoE: 3 layers, 24 experts; supported" in done.stderr
    assert f"next: edgemoe run {REPO}" in done.stderr
    convert(folder, tmp_path / "local", PLAN)
    store = tmp_path / "edgemoe" / "stores" / REPO
    assert same_stores(store, tmp_path / "local")
    listed = json.loads(edgemoe(hub, tmp_path, "list", "--json").stdout)
    assert [entry["name"] for entry in listed["stores"]] == [REPO]
    answers = [
        edgemoe(hub, tmp_path, "run", place, "-p", "Once", "--max-tokens", "4", "--memory", "1GiB", "--json")
        for place in (REPO, "qwen3", str(tmp_path / "local"))
    ]
    tokens = [json.loads(answer.stdout)["token_ids"] for answer in answers]
    assert tokens[0] == tokens[1] == tokens[2]
    assert edgemoe(hub, tmp_path, "remove", REPO).returncode == 2
    assert edgemoe(hub, tmp_path, "remove", REPO, "--yes").returncode == 0
    assert not store.exists()


def test_weights_are_never_on_disk_as_a_whole(hub, folder, tmp_path):
    done = edgemoe(hub, tmp_path, "get", REPO, "--out", str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    beside = [path for path in tmp_path.rglob("*") if path.is_file() and "store" not in path.parts]
    on_disk = sum(path.stat().st_blocks * 512 for path in beside)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    small = sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".safetensors")
    assert on_disk < small + weights / 2
    assert hub.num_bytes_sent >= weights


def test_a_dry_run_fetches_headers_alone_and_says_what_it_would_give(hub, folder, tmp_path):
    done = edgemoe(hub, tmp_path, "get", f"{REPO}@main", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    weights = {name for name, *_ in hub.log if name.endswith(".safetensors")}
    assert len(weights) == 3
    assert all(first == 0 for name, first, _ in hub.log)
    assert facts["family"] == "Qwen3-MoE"
    assert facts["budgets"][0]["budget_bytes"] == facts["smallest_budget_bytes"]
    resident = facts["budgets"][-1]
    assert resident["budget_bytes"] == facts["resident_budget_bytes"]
    assert resident["resident_share"] == 1
    assert resident["speed"]["read_bytes"] == 0


def test_what_breaks_off_goes_on(hub, folder, tmp_path):
    hub.fails_after = 4  # the three headers, and one piece
    broken = edgemoe(hub, tmp_path, "get", REPO)
    assert broken.returncode == 2
    assert "the same command goes on later" in broken.stderr.splitlines()[-1]
    hub.fails_after = None
    done = edgemoe(hub, tmp_path, "get", REPO, "--json")
    assert done.returncode == 0, done.stderr
    convert(folder, tmp_path / "local", PLAN)
    assert same_stores(tmp_path / "edgemoe" / "stores" / REPO, tmp_path / "local")


def test_convert_and_plan_take_names_too(hub, folder, tmp_path):
    done = edgemoe(hub, tmp_path, "convert", REPO, str(tmp_path / "store"), "--bits", "4")
    assert done.returncode == 0, done.stderr
    convert(folder, tmp_path / "local", PLAN)
    assert same_stores(tmp_path / "store", tmp_path / "local")


@pytest.fixture
def gguf(hub, folder, tmp_path):
    """A repository with two models as GGUF, a tower, and a configuration, as some have it beside them."""
    made = hub.models["tiny/gguf"] = tmp_path / "gguf"
    made.mkdir()
    write_gguf(folder, made / "tiny-f32.gguf")
    write_gguf(folder, made / "tiny-Q8_0.gguf", lambda name: Type.Q8_0 if "exps" in name else Type.F32)
    (made / "mmproj-F32.gguf").write_bytes(b"GGUF, but no model")
    shutil.copy(folder / "config.json", made)
    return made


@pytest.mark.parametrize("word", ["tiny-f32.gguf", "F32", "f32", "tiny-f32"])
def test_a_gguf_file_is_packed_as_it_arrives_and_kept_as_it_is(hub, gguf, tmp_path, word):
    done = edgemoe(hub, tmp_path, "get", f"tiny/gguf:{word}")
    assert done.returncode == 0, done.stderr
    store = tmp_path / "edgemoe" / "stores" / "tiny" / "tiny-f32"
    assert {entry.formats.down for entry in open_store(store).manifest.experts.values()} == {"f32"}
    convert(gguf / "tiny-f32.gguf", tmp_path / "local", BitPlan.uniform("f32", "f32"))
    assert same_stores(store, tmp_path / "local")
    assert {name for name, *_ in hub.log} == {"tiny-f32.gguf"}


def test_a_gguf_file_is_never_on_disk_as_a_whole(hub, tmp_path):
    models = hub.models["tiny/gguf"] = tmp_path / "models"
    models.mkdir()
    wide = write_checkpoint(tmp_path / "wide", "qwen3", hidden_size=256, moe_intermediate_size=256)
    size = write_gguf(wide, models / "wide.gguf").stat().st_size
    home = tmp_path / "home"
    looked = edgemoe(hub, home, "get", "tiny/gguf:wide.gguf", "--dry-run")
    assert looked.returncode == 0, looked.stderr
    assert hub.num_bytes_sent < size
    done = edgemoe(hub, home, "get", "tiny/gguf:wide.gguf", "--out", str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    on_disk = sum(path.stat().st_blocks * 512 for path in home.rglob("*") if path.is_file())
    assert on_disk < size / 4
    pieces = [first for _, first, _ in hub.log[1:]]  # after the beginning, which is fetched once
    assert len(pieces) <= 2 * len(set(pieces)), "no piece twice in one command"


def test_a_gguf_file_that_is_none_is_one_line(hub, gguf, tmp_path):
    (gguf / "page-Q2_K.gguf").write_text("<html>sign in first</html>" * 9)
    done = edgemoe(hub, tmp_path, "get", "tiny/gguf:Q2_K")
    assert done.returncode == 2
    assert "page-Q2_K.gguf: " in done.stderr.splitlines()[-1]
    assert "cannot be reached" not in done.stderr
    assert not list(tmp_path.rglob("page-*.gguf*"))[1:], "nothing is kept of it"


def test_a_gguf_file_that_breaks_off_goes_on(hub, gguf, tmp_path):
    hub.fails_after = 1  # the beginning
    broken = edgemoe(hub, tmp_path, "get", "tiny/gguf:f32")
    assert broken.returncode == 2
    assert "the same command goes on later" in broken.stderr.splitlines()[-1]
    hub.fails_after = None
    done = edgemoe(hub, tmp_path, "get", "tiny/gguf:f32")
    assert done.returncode == 0, done.stderr
    convert(gguf / "tiny-f32.gguf", tmp_path / "local", BitPlan.uniform("f32", "f32"))
    assert same_stores(tmp_path / "edgemoe" / "stores" / "tiny" / "tiny-f32", tmp_path / "local")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "tiny/gguf",
            "holds GGUF files (tiny-Q8_0.gguf, tiny-f32.gguf); name one, as tiny/gguf:tiny-Q8_0.gguf",
        ),
        ("tiny/gguf:Q4_K_M", "has no GGUF file of that name; it holds tiny-Q8_0.gguf, tiny-f32.gguf"),
        ("tiny/gguf:tiny", "has 2 such GGUF files (tiny-Q8_0.gguf, tiny-f32.gguf); name one"),
        (f"{REPO}:Q4_K_M", "has no GGUF file of that name; it holds no GGUF files"),
    ],
)
def test_a_gguf_file_that_is_not_named_clearly_is_asked_for(hub, gguf, tmp_path, name, said):
    """Nothing is fetched, though the repository has a configuration as folders of other weights do."""
    done = edgemoe(hub, tmp_path, "get", name)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert not [name for name, *_ in hub.log if name.endswith(".gguf")]


def test_a_gguf_file_in_the_hubs_own_cache_is_used(hub, gguf, tmp_path):
    fetch = "import huggingface_hub as hub; hub.hf_hub_download('tiny/gguf', 'tiny-f32.gguf')"
    environment = {
        **os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", fetch], env=environment, check=True, timeout=120)
    num_bytes_sent = hub.num_bytes_sent
    for number, (name, is_offline) in enumerate([("f32", "0"), ("tiny-f32.gguf", "1")]):
        place = str(tmp_path / f"store{number}")
        done = edgemoe(hub, tmp_path, "get", f"tiny/gguf:{name}", "--out", place, HF_HUB_OFFLINE=is_offline)
        assert done.returncode == 0, done.stderr
    assert hub.num_bytes_sent == num_bytes_sent
    short = edgemoe(hub, tmp_path, "get", "tiny/gguf:f32", HF_HUB_OFFLINE="1")
    assert short.returncode == 2
    assert "HF_HUB_OFFLINE is set" in short.stderr


def test_a_split_gguf_file_is_fetched_as_a_whole_by_the_name_of_any_part(hub, folder, tmp_path):
    write_gguf(folder, tmp_path / "whole.gguf")
    parted = tmp_path / "parted" / "q"
    parted.mkdir(parents=True)
    write_gguf(folder, parted / "m.gguf", split_tensors=20)
    names = sorted(path.name for path in parted.iterdir())
    assert len(names) > 1
    hub.models["tiny/parted"] = parted.parent
    done = edgemoe(hub, tmp_path, "get", f"tiny/parted:q/{names[1]}")
    assert done.returncode == 0, done.stderr
    convert(tmp_path / "whole.gguf", tmp_path / "local", BitPlan.uniform("f32", "f32"))
    assert same_stores(tmp_path / "edgemoe" / "stores" / "tiny" / "m", tmp_path / "local")


def test_what_lies_beside_weights_of_torch_is_no_reason_not_to_fetch_them(hub, folder, tmp_path):
    """An adapter, and weights in their makers' own layout."""
    made = shutil.copytree(folder, tmp_path / "torch")
    tensors = {}
    for path in made.glob("*.safetensors"):
        tensors |= {name: torch.from_numpy(values) for name, values in load_file(path).items()}
        path.unlink()
    (made / "model.safetensors.index.json").unlink()
    torch.save(tensors, made / "pytorch_model.bin")
    (made / "original").mkdir()
    for file in ("adapter_model.safetensors", "original/model.safetensors"):
        save_file({"x": np.ones(1, np.float32)}, made / file)
    hub.models["tiny/torch"] = made
    done = edgemoe(hub, tmp_path, "get", "tiny/torch", "--out", str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    convert(folder, tmp_path / "local", PLAN)
    assert same_stores(tmp_path / "store", tmp_path / "local")


def test_templates_in_a_folder_of_their_own_come_along(hub, folder, tmp_path):
    made = shutil.copytree(folder, tmp_path / "named")
    (made / "additional_chat_templates").mkdir()
    (made / "additional_chat_templates" / "rag.jinja").write_text("{{ documents }}")
    hub.models["tiny/named"] = made
    done = edgemoe(hub, tmp_path, "get", "tiny/named", "--out", str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr
    named = json.loads((tmp_path / "store" / "tokenizer_config.json").read_text())["chat_template"]
    assert {"name": "rag", "template": "{{ documents }}"} in named


def test_a_store_is_not_fetched_to_be_converted(hub, tmp_path):
    with demo_store() as store:
        hub.models["tiny/store"] = store
        for command in ("get", "convert"):
            done = edgemoe(hub, tmp_path, command, "tiny/store", *([] if command == "get" else ["made"]))
            assert done.returncode == 2
            assert done.stderr.endswith(
                "tiny/store: is a store already; run it from there, as hf://tiny/store\n"
            )
    assert hub.num_bytes_sent == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny/none", "is not there, or is private"),
        (f"{REPO}@v9", "has no such revision"),
        (f"{REPO}:none.gguf", "has no such file"),
        ("nonsense", "is no name of a model on the Hub"),
    ],
)
def test_what_is_not_there_is_one_line(hub, tmp_path, name, message):
    done = edgemoe(hub, tmp_path, "get", name)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_gated_models_and_an_unreachable_hub_say_what_to_do(hub, tmp_path):
    hub.gated.add(REPO)
    assert "hf auth login" in edgemoe(hub, tmp_path, "get", REPO, HF_TOKEN="hf_secret").stderr
    assert hub.tokens == {"hf_secret"}
    gone = edgemoe(hub, tmp_path, "get", REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert gone.returncode == 2
    assert "check the network or HF_ENDPOINT" in gone.stderr.splitlines()[-1]
    offline = edgemoe(hub, tmp_path, "get", REPO, HF_HUB_OFFLINE="1")
    assert offline.returncode == 2
    assert "Traceback" not in offline.stderr


def test_a_forecast_falls_with_memory_and_storage():
    with demo_store() as path:
        store = open_store(path)
        spec = read_spec(store.config)

        def speed(share, storage_bytes_per_s):
            found = forecast_speed(spec, store.manifest, share, 2e10, storage_bytes_per_s)
            assert found.tokens_per_s == pytest.approx(1 / (found.compute_s + found.read_s))
            return found

        slow = [speed(share, 2e7).tokens_per_s for share in (0.1, 0.25, 0.5, 1)]
        assert np.all(np.diff(slow) > 0)
        assert slow[0] < speed(0.1, 2e9).tokens_per_s
        assert slow[-1] == speed(1, 2e9).tokens_per_s
        assert speed(1, 2e7).read_bytes == 0
