"""Write the card of a trained model: everything in it is measured by this command.

    python training/model_card.py --data DIR --run DIR --model models/NAME

`--run` is the folder that train.py wrote its log to; the card and its pictures go into the model's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from string import Template
from typing import Any

import evaluate
import routing_facts

import edgemoe

# Ten beginnings, chosen before any was tried; three of them are requests in the chat form.
PROMPTS = (
    "Once upon a time",
    "The old fox",
    "Tom and his dog went to the beach.",
    "It was a cold night and the wind",
    "The king said to his daughter,",
    "The city is known for",
    "Anna has 3 apples and buys 4 more.",
)
REQUESTS = (
    "Tell me a story about a cat and a boat.",
    "Sam has 12 marbles and gives 5 to his friend. How many marbles are left?",
    "Please tell me a tale about the moon.",
)
SAMPLING: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "seed": 1, "max_tokens": 110}


def samples(store: Path) -> str:
    """The beginning of an answer to every prompt, as it comes."""
    lines = []
    with edgemoe.load(store) as model:
        for prompt in PROMPTS:
            answer = model.generate(prompt, **SAMPLING)
            lines.append(f"1. **{prompt}**{_inline(answer.text)}")
        for request in REQUESTS:
            answer = model.chat([{"role": "user", "content": request}], **SAMPLING)
            lines.append(f"1. (asked) **{request}** {_inline(answer.text)}")
    return "\n".join(lines)


def _inline(text: str) -> str:
    return text.rstrip().replace("\n\n", " ").replace("\n", " ").replace("*", r"\*")


def write_card(data: Path, run: Path, model: Path, num_tokens: int) -> str:
    """The card's text; pictures are written beside it."""
    config = json.loads((model / "config.json").read_text())
    texts = evaluate.held_out_tokens(data, model, num_tokens)
    with evaluate.full_precision_store(model) as store:
        losses = evaluate.measure(model, store, texts)
        facts = routing_facts.measure(store, texts)
        written = samples(store)
    routing_facts.draw(facts, model / "routing.png")
    shutil.copy(run / "loss.png", model / "loss.png")
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    alike, unlike = routing_facts.extremes(facts)
    alone = {name: fact for name, fact in facts.items() if name != routing_facts.ALL}
    size = (model / "model.safetensors").stat().st_size
    template = Template(Path(__file__).with_name("model_card.md").read_text())
    return template.substitute(
        name=model.name,
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        experts=config["num_local_experts"],
        chosen=config["num_experts_per_tok"],
        expert_width=config["moe_intermediate_size"],
        vocab=config["vocab_size"],
        context=config["max_position_embeddings"],
        parameters=f"{size / 2e6:.1f}",
        megabytes=f"{size / 1e6:.1f}",
        tokens=f"{last['tokens'] / 1e6:.1f}",
        steps=last["step"],
        loss=f"{last['loss']:.3f}",
        losses=evaluate.table(losses),
        facts=routing_facts.table(facts),
        chance=f"{config['num_experts_per_tok'] / config['num_local_experts']:.0%}",
        alike=alike,
        unlike=unlike,
        reuse=f"{min(f.reuse for f in alone.values()):.0%} to {max(f.reuse for f in alone.values()):.0%}",
        samples=written,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=16384, help="measured of each domain")
    args = parser.parse_args()
    card = write_card(args.data, args.run, args.model, args.tokens)
    (args.model / "README.md").write_text(card)
    print(f"wrote {args.model / 'README.md'}")


if __name__ == "__main__":
    main()
