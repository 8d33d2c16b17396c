"""The adapter against the engine itself, and a local task through the harness's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

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
        logits = model.logits(ids[:-1]).astype(np.float64)
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
    assert cut == pytest.approx(expected(tiny_store, long[-129:], 3)), "the beginning is dropped"


def test_an_empty_continuation_is_certain(adapter):
    assert adapter._loglikelihood_tokens([(("", ""), [5, 6], [])]) == [(0.0, True)]


def test_what_it_would_answer_is_greedy(adapter, tiny_store):
    prompt = np.random.default_rng(1).integers(3, 320, 20).tolist()
    with edgemoe.load(tiny_store, "4GiB", context=128) as model:
        answer = model.generate(prompt, max_tokens=4).token_ids
    assert adapter._loglikelihood_tokens([(("", ""), prompt, answer)])[0][1]


def request(*arguments):
    return types.SimpleNamespace(args=arguments)


@pytest.fixture(scope="module", params=["qwen3", "mixtral"])
def beside_hf(request, tmp_path_factory):
    """A tiny model in full precision here and in the harness's own backend; one tokenizer adds BOS."""
    pytest.importorskip("accelerate")
    import torch
    import transformers
    from helpers.tiny_models import write_checkpoint
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, processors

    from edgemoe.convert import convert
    from edgemoe.integrations.lm_eval import EdgeMoELM
    from edgemoe.quant import BitPlan

    folder = tmp_path_factory.mktemp("beside-hf")
    checkpoint = write_checkpoint(folder / "checkpoint", request.param)
    adds_bos = request.param == "mixtral"
    if adds_bos:
        path = checkpoint / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
        )
        tokenizer.save(str(path))
        settings = {"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"}
        (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    convert(checkpoint, folder / "store", BitPlan.uniform("f32", "f32"))
    ours = EdgeMoELM(str(folder / "store"), memory="2GiB", context=64, kv_format="f32")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    texts = transformers.PreTrainedTokenizerFast.from_pretrained(checkpoint)
    theirs = HFLM(pretrained=model, tokenizer=texts, max_length=64, batch_size=1, device="cpu")
    return ours, theirs, adds_bos


LONG = "There was a small river and a grey stone near the old mill, and nobody went there at night. " * 3


@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_the_harness(beside_hf):
    ours, theirs, adds_bos = beside_hf
    pairs = [
        ("Once upon", " a time"),
        ("", "a river"),
        ("The ", "stone"),
        (LONG, " the end"),
        ("a", LONG[:50]),
    ]
    requests = [request(*pair) for pair in pairs]
    for (found, is_greedy), (right, is_right) in zip(
        ours.loglikelihood(requests, disable_tqdm=True), theirs.loglikelihood(requests, disable_tqdm=True),
        strict=True,
    ):  # fmt: skip
        assert found == pytest.approx(right, abs=1e-4, rel=1e-4)
        assert is_greedy == is_right
    texts = [request("Once upon a time"), request(LONG)]
    if adds_bos:
        theirs.add_bos_token = False  # else it scores a second BOS
    rolling = theirs.loglikelihood_rolling(texts, disable_tqdm=True)
    theirs.add_bos_token = None
    assert ours.loglikelihood_rolling(texts) == pytest.approx(rolling, abs=1e-4, rel=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_answers_are_those_of_the_harness(beside_hf):
    ours, theirs, _ = beside_hf
    options = {"until": [" r"], "max_gen_toks": 12}
    requests = [request(text, options) for text in ("Once upon", "A grey", LONG)]
    right = theirs.generate_until([types.SimpleNamespace(args=r.args) for r in requests], disable_tqdm=True)
    assert ours.generate_until(requests) == right


def test_lengths_beyond_the_context_are_named(adapter, caplog):
    with pytest.raises(RequestError, match=r"max_gen_toks=128 leaves no room .* context of 128"):
        adapter.generate_until([request("Once", {"max_gen_toks": 128})])
    with pytest.raises(RequestError, match="max_new_tokens=500 leaves no room"):
        adapter.generate_until([request("Once", {"max_new_tokens": 500})])
    with pytest.raises(RequestError, match="no num_beams"):
        adapter.generate_until([request("Once", {"num_beams": 4})])
    with pytest.raises(RequestError, match="a continuation of 200 tokens"):
        adapter._loglikelihood_tokens([(("", ""), [1], [5] * 200)])
    adapter.generate_until([request(LONG * 2, {"max_gen_toks": 100})])
    assert "only the last 28 of" in caplog.text


def test_the_store_s_template_shapes_a_conversation(adapter):
    text = adapter.apply_chat_template([{"role": "user", "content": "hi"}])
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert adapter.tok_encode(text) == adapter.tok_encode(text, add_special_tokens=False)


WITHOUT_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_conversations_are_rendered_as_by_the_harness(tmp_path, caplog):
    """Answers that are begun for the model, and templates that refuse the role "system"."""
    from helpers.tiny_models import write_checkpoint

    from edgemoe.convert import convert
    from edgemoe.integrations.lm_eval import EdgeMoELM
    from edgemoe.quant import BitPlan

    folder = write_checkpoint(tmp_path / "hf", "qwen3")
    (folder / "chat_template.jinja").write_text(WITHOUT_SYSTEM)
    convert(folder, tmp_path / "store", BitPlan.uniform("q4", "q8"))
    adapter = EdgeMoELM(str(tmp_path / "store"), memory="2GiB", context=64)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The answer is"}]
    assert adapter.apply_chat_template(turns, add_generation_prompt=False) == (
        "[user]hi</s>[assistant]The answer is"
    )
    system = [{"role": "system", "content": "be brief"}, turns[0]]
    assert adapter.apply_chat_template(system) == "[user]hi</s>[assistant]"
    assert "no system here; what has the role system is left out" in caplog.text


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
