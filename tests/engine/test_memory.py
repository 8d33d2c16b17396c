"""The budget: it adds up, it is monotone, and the process stays within it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgemoe.engine.machine import cgroup_room, describe_machine, resident_bytes
from edgemoe.engine.memory import MemoryNeeds, plan_memory, resident_budget, working_bytes
from edgemoe.errors import BudgetError
from edgemoe.models import read_spec
from edgemoe.store import open_store
from edgemoe.units import MIB

EXTRA = [150 * MIB, 1500 * MIB, 7500 * MIB]  # beyond what the tests before have left in the process


@pytest.fixture(scope="module")
def opened(tiny_store):
    store = open_store(tiny_store)
    return read_spec(store.config), store.manifest


@pytest.mark.parametrize("extra", EXTRA)
def test_the_items_add_up_to_at_most_the_budget(opened, extra):
    budget = resident_bytes() + extra
    plan = plan_memory(*opened, budget)
    assert sum(item.num_bytes for item in plan.items) <= budget
    assert plan.smallest_num_bytes <= budget
    assert json.loads(json.dumps(plan.to_json()))["budget_bytes"] == budget


def test_more_budget_never_gives_a_smaller_cache(opened):
    smallest = plan_memory(*opened, resident_bytes() + EXTRA[-1]).smallest_num_bytes
    sizes = [plan_memory(*opened, smallest + MIB * extra).expert_cache_bytes for extra in range(40, 60)]
    assert sizes == sorted(sizes)


def test_the_smallest_budget_works_and_less_does_not(opened):
    smallest = plan_memory(*opened, resident_bytes() + EXTRA[-1]).smallest_num_bytes + 4 * MIB
    plan_memory(*opened, smallest)
    with pytest.raises(BudgetError):
        plan_memory(*opened, smallest - 64 * MIB)


def test_the_resident_budget_keeps_everything(opened):
    assert plan_memory(*opened, resident_budget(*opened) + 8 * MIB).is_resident


def test_a_model_of_networks_alone_takes_working_memory():
    config = {
        "model_type": "nemotron_h", "layers_block_type": ["moe", "mlp"], "hidden_size": 64, "vocab_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 96,
        "n_routed_experts": 4, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 64,
    }  # fmt: skip
    assert working_bytes(read_spec(config), 8) > 8 * 4 * 64


def test_values_of_another_size_than_keys_are_counted():
    config = {
        "model_type": "mimo_v2_flash", "num_hidden_layers": 3, "hidden_size": 64, "vocab_size": 96,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "v_head_dim": 16,
        "intermediate_size": 96, "moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2,
    }  # fmt: skip
    spec = read_spec(config)
    slots = spec.new_state(1024, "f32").layers
    assert [s.values.shape[-1] for s in slots] == [16, 16, 16]
    assert sum(s.keys.nbytes + s.values.nbytes for s in slots) == spec.state_num_bytes(1024, "f32")


def test_a_state_takes_what_the_plan_says(opened):
    spec, _ = opened
    for format in ("f16", "f32"):
        slots = spec.new_state(1024, format).layers
        assert sum(s.keys.nbytes + s.values.nbytes for s in slots) == spec.state_num_bytes(1024, format)


def test_machine_facts_are_plausible():
    machine = describe_machine()
    assert 0 < machine.available_memory_bytes <= machine.memory_bytes
    assert machine.isa in machine.available_isas
    room = cgroup_room()
    assert room is None or 0 <= room[1] <= room[0]


PROGRAM = """
import sys, edgemoe
with edgemoe.load(sys.argv[1], sys.argv[2], context=128) as model:
    model.generate(list(range(3, 90)), max_tokens=30)
    model.perplexity(list(range(3, 120)), window=64, stride=32)
    print(model.generate([5], max_tokens=2).peak_rss_bytes, model.memory.budget_bytes)
"""


MANY = """
import sys, threading, edgemoe
with edgemoe.load(sys.argv[1], sys.argv[2], context=128, num_texts=int(sys.argv[3])) as model:
    prompts = [list(range(3 + i, 20 + 9 * i)) for i in range(8)]
    def ask(prompt):
        for _ in range(3):
            model.generate(prompt, max_tokens=40, temperature=1.0)
    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    [thread.start() for thread in threads]
    model.generate_many(prompts, max_tokens=20)
    streams = [model.stream(prompt, max_tokens=20) for prompt in prompts]
    for _ in range(20):
        [next(stream, None) for stream in streams]
    [thread.join() for thread in threads]
    print(model.generate([5], max_tokens=2).peak_rss_bytes, model.memory.budget_bytes)
"""


@pytest.mark.parametrize("num_texts", ["1", "6"])
def test_many_texts_at_once_stay_within_the_budget(tiny_store, num_texts):
    program = [sys.executable, "-c", MANY, tiny_store]
    refused = subprocess.run([*program, "1MiB", num_texts], capture_output=True, text=True, check=False)
    smallest = refused.stderr.rsplit("smallest budget that works is ", 1)[1].split()[0]
    done = subprocess.run([*program, smallest, num_texts], capture_output=True, text=True, check=True)
    peak, budget = map(int, done.stdout.split())
    assert peak <= budget


def test_a_whole_process_stays_within_its_budget(tiny_store):
    with pytest.raises(BudgetError) as caught:
        plan_memory(
            *(lambda s: (read_spec(s.config), s.manifest))(open_store(tiny_store)), MIB, MemoryNeeds(128)
        )
    # This process has PyTorch loaded; a fresh one needs far less.
    assert caught.value.smallest_num_bytes > 0
    refused = subprocess.run(
        [sys.executable, "-c", PROGRAM, tiny_store, "1MiB"], capture_output=True, text=True, check=False
    )
    smallest = refused.stderr.rsplit("smallest budget that works is ", 1)[1].split()[0]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tiny_store, smallest], capture_output=True, text=True, check=True
    )
    peak, budget = map(int, done.stdout.split())
    assert peak <= budget
