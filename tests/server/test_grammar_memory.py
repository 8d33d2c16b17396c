"""What grammars take, beside the place that the memory plan keeps for it."""

from __future__ import annotations

import subprocess
import sys

from helpers.live_server import DEMO_STORE

import edgemoe
from edgemoe.engine.memory import GRAMMAR_BYTES

NUM_TOKENS = 60_000
# A vocabulary like a real one's: words of letters, most of them after a space, by Zipf's lengths.
PROGRAM = f"""
import random

from llguidance import LLTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from edgemoe.engine.memory import resident_bytes
from edgemoe.server.escaped_tokens import EscapedTokens

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
rng = random.Random(0)
words = dict.fromkeys(alphabet)
while len(words) < {NUM_TOKENS - 1}:
    letters = "".join(rng.choices("etaoinshrdlucmfwypvbgkjqxz", k=rng.randint(2, 11)))
    words[rng.choice(["\\u0120", ""]) + letters] = None

def vocabulary(words):
    ids = {{word: place for place, word in enumerate([*words, "<end>"])}}
    tokenizer = Tokenizer(models.BPE(ids, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    return tokenizer.to_str(), len(ids)


def grammars(text, size):
    tokens = LLTokenizer(text, n_vocab=size, eos_token=[size - 1])
    return tokens, EscapedTokens(tokens, size)


_ = grammars(*vocabulary(alphabet))  # loads the library
text, size = vocabulary(words)
before = resident_bytes()
held = grammars(text, size)
print(resident_bytes() - before)
"""


def test_a_vocabulary_takes_no_more_than_is_kept_for_it():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= GRAMMAR_BYTES * NUM_TOKENS


def test_the_server_keeps_room_for_grammars():
    with edgemoe.load(DEMO_STORE, has_grammars=True) as model:
        items = {item.key: item.num_bytes for item in model.memory.items}
        assert items["grammars"] == GRAMMAR_BYTES * model.spec.vocab_size
