"""The adapter against the engine itself, and a local task through the harness's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("lm_eval")

import edgemoe
from edgemoe.errors import RequestError


@pytest.fixture(scope="module")
def adapter(tiny_store):
    from edgemoe.integrations.lm_eval import EdgeMoELM

    return EdgeMoELM(str(tiny_store), memory="4GiB", context=128)


def expected(store, ids, count):
    with edgemoe.load(store, "4GiB", context=128) as model:
        logits = model.logits(ids).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = range(len(ids) - count - 1, len(ids) - 1)
    return sum(logs[row, ids[row + 1]] for row in rows), all(
        logits[row].argmax() == ids[row + 1] for row in rows
    )


def test_scores_are_the_engines(adapter, tiny_store):
    rng = np.random.default_rng(0)
    for count in (1, 5, 40):
        ids = rng.integers(3, 320, 50).tolist()
        found = adapter._loglikelihood_tokens([(("", ""), ids[:-count], ids[-count:])])[0]
        assert found == pytest.approx(expected(tiny_store, ids, count))
    long = rng.integers(3, 320, 300).tolist()
    cut = adapter._loglikelihood_tokens([(("", ""), long[:-3], long[-3:])])[0]
    assert cut == pytest.approx(expected(tiny_store, long[-128:], 3)), "the beginning is dropped"


def test_what_it_would_answer_is_greedy(adapter, tiny_store):
    prompt = np.random.default_rng(1).integers(3, 320, 20).tolist()
    with edgemoe.load(tiny_store, "4GiB", context=128) as model:
        answer = model.generate(prompt, max_tokens=4).token_ids
    assert adapter._loglikelihood_tokens([(("", ""), prompt, answer)])[0][1]


def test_wrong_arguments_are_refused(tiny_store):
    from edgemoe.integrations.lm_eval import EdgeMoELM

    with pytest.raises(RequestError, match="one text at a time"):
        EdgeMoELM(str(tiny_store), batch_size=8)
    with pytest.raises(RequestError, match="unexpected keyword argument 'colour'"):
        EdgeMoELM(str(tiny_store), colour="red")


TASK = """task: animals
dataset_path: json
dataset_kwargs:
  data_files:
    test: FILE
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
---
task: story
dataset_path: json
dataset_kwargs:
  data_files:
    test: FILE
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - metric: byte_perplexity
---
task: reply
dataset_path: json
dataset_kwargs:
  data_files:
    test: FILE
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 8
metric_list:
  - metric: exact_match
"""


def test_local_tasks_by_the_harness_command(tiny_store, tmp_path):
    rows = [
        {"question": "The fox went to the", "choices": [" river", " stone"], "answer": 0},
        {"question": "Once upon a", "choices": [" moon", " time"], "answer": 1},
    ]
    data, tasks = tmp_path / "rows.jsonl", tmp_path / "tasks"
    data.write_text("\n".join(map(json.dumps, rows)))
    tasks.mkdir()
    parts = TASK.replace("FILE", str(data)).split("---\n")
    for number, part in enumerate(parts):
        (tasks / f"{number}.yaml").write_text(part)
    environment = {**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "edgemoe.integrations.lm_eval",
        "--model",
        "edgemoe",
        "--include_path",
        str(tasks),
    ]
    command += ["--model_args", f"store={tiny_store},memory=4GiB,context=128"]
    command += ["--tasks", "animals,story,reply", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "out").rglob("results*.json")
    results = json.loads(path.read_text())["results"]
    assert results["animals"]["acc,none"] in (0.0, 0.5, 1.0)
    assert results["story"]["byte_perplexity,none"] > 1
    assert results["reply"]["exact_match,none"] == 0
