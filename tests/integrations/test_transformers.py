"""Models of transformers with their experts in a store, against those models as transformers loads them."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from tiny_transformers import VOCABULARY, model_class, tiny_model

import edgemoe
from edgemoe.errors import BudgetError, CheckpointError, RequestError, StoreError, UnsupportedModelError
from edgemoe.integrations.transformers import EdgeMoEConfig, convert_experts
from edgemoe.integrations.transformers.activations import find_activation
from edgemoe.integrations.transformers.routers import build_predictor

# Sums in another order, over a few layers of single precision.
ROUNDING = 1e-5
# One of every way in which experts are held, chosen or stored.
KINDS = (
    "qwen3_moe",  # a tensor for every matrix of an expert
    "gpt_oss",  # transposed, gate and up row by row, biases
    "deepseek_v4",  # clamps, choices by a table that names experts twice
    "qwen3_vl_moe",  # transposed or not, by the shape
    "ernie4_5_vl_moe",  # of text and of images, in one list
    "zaya",  # an expert that does nothing
    "longcat_flash",  # experts that hand on what they are given
    "llama4",  # weighted before they run
    "dbrx",  # one matrix of all
    "switch_transformers",  # apart, no gate, chosen by a mask
)
IDS = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", autouse=True)
def quietly():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A checkpoint and its experts as they are."""
    folder = tmp_path_factory.mktemp("qwen")
    tiny_model("qwen3_moe").save_pretrained(folder / "model")
    convert_experts(folder / "model", folder / "f32", "f32")
    return folder


def load(folder, store=None, **options):
    kind = model_class(json.loads((folder / "config.json").read_text())["model_type"].removesuffix("_text"))
    config = None if store is None else EdgeMoEConfig(store, **options)
    return kind.from_pretrained(folder, quantization_config=config, dtype=torch.float32).eval()


def logits(model):
    decoder = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=IDS, **decoder).logits


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind, tmp_path):
    tiny_model(kind).save_pretrained(tmp_path / "model")
    convert_experts(tmp_path / "model", tmp_path / "store", "f32")
    plain = model_class(kind).from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    config = EdgeMoEConfig(tmp_path / "store")
    stored = model_class(kind).from_pretrained(
        tmp_path / "model", quantization_config=config, dtype=torch.float32
    )
    expected = logits(plain)
    assert (logits(stored.eval()) - expected).abs().max() < ROUNDING * expected.abs().max()
    assert stored.edgemoe.counts.bytes_read > 0
    stored.edgemoe.close()


def test_tokens_are_the_same_while_experts_come_and_go(qwen):
    few = 3 * 4 * 3 * 64 * 32  # three experts' records at most
    plain, stored = load(qwen / "model"), load(qwen / "model", qwen / "f32", cache=few + 3 * 4096)
    with torch.no_grad():
        expected = plain.generate(IDS[:1], max_new_tokens=12, do_sample=False)
        found = stored.generate(IDS[:1], max_new_tokens=12, do_sample=False)
    assert found.tolist() == expected.tolist()
    assert stored.edgemoe.counts.misses > 16, "nothing was evicted: there are 16 experts"


def test_the_next_routers_say_what_will_be_needed(qwen):
    stored = load(qwen / "model", qwen / "f32")
    paths = [f"model.layers.{layer}.mlp.experts" for layer in range(4)]
    layers = stored.model.layers
    with torch.no_grad():
        for layer in layers:  # as training leaves them: each norm has weights of its own
            layer.post_attention_layernorm.weight.uniform_(0.5, 2)
    predictor = build_predictor(stored, paths, [4] * 4, 2)
    state = torch.randn(3, 64, generator=torch.Generator().manual_seed(4))
    seen = layers[1].post_attention_layernorm(state).detach().numpy()
    ids, weights = np.tile(np.int32([[0, 1]]), (3, 1)), np.full((3, 2), 0.5, np.float32)
    forecasts = predictor.forecast(1, seen, ids, weights, 2)
    assert [position for position, _ in forecasts] == [2, 3]
    for position, scores in forecasts:
        layer = layers[position]
        expected = layer.post_attention_layernorm(state) @ layer.mlp.gate.weight.T
        np.testing.assert_allclose(scores, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_eight_bits_change_logits_as_that_format_does(qwen, tmp_path):
    convert_experts(qwen / "model", tmp_path / "q8", 8)
    expected = logits(load(qwen / "model"))
    change = logits(load(qwen / "model", tmp_path / "q8")) - expected
    relative = change.norm(dim=-1) / expected.norm(dim=-1)
    assert 1e-4 < relative.median() < 0.05


def test_torch_never_holds_an_expert(qwen):
    stored = load(qwen / "model", qwen / "f32")
    names = {name for name, _ in stored.named_parameters()}
    assert names
    assert not [name for name in names if "experts" in name]
    assert all(value.device.type == "cpu" for value in stored.parameters())
    plain = dict(load(qwen / "model").named_parameters())
    of_experts = sum(value.numel() for name, value in plain.items() if "experts" in name)
    held = sum(value.numel() for value in stored.parameters())
    assert held + of_experts == sum(value.numel() for value in plain.values())


def test_mxfp4_stays_as_it_is(tmp_path):
    model = tiny_model("gpt_oss")
    model.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    rng = np.random.default_rng(5)
    values = {}
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        num_experts, inputs, outputs = tensors.pop(name).shape
        blocks = rng.integers(0, 256, (num_experts, outputs, inputs // 32, 16), dtype=np.uint8)
        scales = rng.integers(121, 126, (num_experts, outputs, inputs // 32), dtype=np.uint8)
        values[name] = dequantized(blocks, scales)
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = map(torch.from_numpy, (blocks, scales))
    save_file(tensors, path, {"format": "pt"})
    assert convert_experts(tmp_path / "model", tmp_path / "store").num_matrices == {"MXFP4 → mxfp4": 48}
    # The formats multiply by activations of 8 bits; widened to f32 the store has the very same numbers.
    convert_experts(tmp_path / "model", tmp_path / "f32", "f32")
    stored = load(tmp_path / "model", tmp_path / "f32")
    save_file({**tensors, **values}, path, {"format": "pt"})
    expected = logits(load(tmp_path / "model"))
    assert (logits(stored) - expected).abs().max() < ROUNDING * expected.abs().max()


def dequantized(blocks, scales):
    """MXFP4 (E, outputs, inputs / 32, 16) as floats (E, inputs, outputs), by OCP's specification."""
    table = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    numbers = np.stack([table[blocks & 15], table[blocks >> 4]], axis=-1).reshape(*blocks.shape[:3], 32)
    whole = (numbers * np.exp2(scales.astype(np.float32) - 127)[..., None]).reshape(*blocks.shape[:2], -1)
    return torch.from_numpy(np.ascontiguousarray(whole.transpose(0, 2, 1)))


def test_a_trainer_evaluates_and_training_experts_is_refused(qwen, tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in IDS]
    arguments = transformers.TrainingArguments(tmp_path, report_to=[], use_cpu=True, disable_tqdm=True)
    losses = [
        transformers.Trainer(model, arguments, eval_dataset=rows).evaluate()["eval_loss"]
        for model in (load(qwen / "model"), load(qwen / "model", qwen / "f32"))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    stored = load(qwen / "model", qwen / "f32")
    with pytest.raises(RequestError, match="no gradient"):
        stored(input_ids=IDS, labels=IDS).loss.backward()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft of transformers
def test_adapters_on_the_trunk(qwen):
    peft = pytest.importorskip("peft")
    found = []
    for model in (load(qwen / "model"), load(qwen / "model", qwen / "f32")):
        torch.manual_seed(3)
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        )
        found.append(logits(adapted.eval()))
    assert (found[1] - found[0]).abs().max() < ROUNDING * found[0].abs().max()
    assert (found[0] - logits(load(qwen / "model"))).abs().max() > 0.01


def test_a_pipeline(qwen):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0")
    texts = [
        transformers.pipeline("text-generation", model, tokenizer=tokenizer, device="cpu")(
            "w5 w9 w30", max_new_tokens=6, do_sample=False
        )[0]["generated_text"]
        for model in (load(qwen / "model"), load(qwen / "model", qwen / "f32"))
    ]
    assert texts[1] == texts[0]
    assert len(texts[0].split()) > 3


def test_a_store_of_another_model_is_refused(qwen, tmp_path):
    tiny_model("qwen3_moe", seed=7).save_pretrained(tmp_path / "tuned")
    with pytest.raises(StoreError, match=r"of other weights than this model: model\.layers\.0\.mlp\.gate"):
        load(tmp_path / "tuned", qwen / "f32")
    tiny_model("mixtral").save_pretrained(tmp_path / "mixtral")
    with pytest.raises(StoreError, match="was made of another model"):
        load(tmp_path / "mixtral", qwen / "f32")


def test_each_kind_of_store_says_what_it_is_for(qwen, tiny_store):
    with pytest.raises(StoreError, match="holds experts alone"):
        edgemoe.load(qwen / "f32")
    with pytest.raises(StoreError, match="holds a whole model"):
        load(qwen / "model", tiny_store)


def test_a_budget_without_room_names_the_smallest_that_works(qwen):
    with pytest.raises(BudgetError, match="the smallest memory that works is") as caught:
        load(qwen / "model", qwen / "f32", memory="64MiB")
    enough = caught.value.smallest_num_bytes + (8 << 20)
    assert load(qwen / "model", qwen / "f32", memory=enough).edgemoe.cache_bytes > 0


def test_options_and_checkpoints_that_cannot_be(qwen, tmp_path):
    with pytest.raises(RequestError, match="no predictor 'table'"):
        EdgeMoEConfig(qwen / "f32", predictor="table")
    dense = transformers.LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, vocab_size=96)
    transformers.LlamaForCausalLM(dense).save_pretrained(tmp_path / "dense")
    with pytest.raises(UnsupportedModelError, match="has no experts that edgemoe knows"):
        convert_experts(tmp_path / "dense", tmp_path / "store")
    config = json.loads((qwen / "model" / "config.json").read_text())
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "config.json").write_text(json.dumps(config))
    tensors = load_file(qwen / "model" / "model.safetensors")
    del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
    save_file(tensors, tmp_path / "lost" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1"):
        convert_experts(tmp_path / "lost", tmp_path / "store")


def test_an_activation_that_the_core_has_not_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"here: its experts have an activation"):
        find_activation(lambda gate, up: torch.sin(gate) * up, True, "here")
    assert find_activation(lambda up, _: torch.nn.functional.gelu(up), False, "here") == "gelu"
    quick = find_activation(lambda gate, up: gate * torch.sigmoid(1.702 * gate) * up, True, "here")
    assert quick == "clamped_glu:inf:inf:1.702:0.0"
