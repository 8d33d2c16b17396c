"""Which GGUF file of a repository a word means."""

from __future__ import annotations

import pytest

from edgemoe.checkpoint.hub.names import HubName, find_file, parse_hub_name
from edgemoe.errors import CheckpointError

FILES = [
    "README.md",
    "config.json",
    "mmproj-Q8_0.gguf",
    "imatrix_unsloth.gguf",
    "Qwen3-30B-A3B-Q4_K.gguf",
    "Qwen3-30B-A3B-Q4_K_M.gguf",
    "Qwen3-30B-A3B-IQ4_XS.gguf",
    "Qwen3-30B-A3B-UD-Q2_K_XL.gguf",
    "Q8_0/Qwen3-30B-A3B-Q8_0-00001-of-00002.gguf",
    "Q8_0/Qwen3-30B-A3B-Q8_0-00002-of-00002.gguf",
    "BF16/Qwen3-30B-A3B-BF16-00001-of-00002.GGUF",
    "BF16/Qwen3-30B-A3B-BF16-00002-of-00002.GGUF",
]


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("Q4_K_M", "Qwen3-30B-A3B-Q4_K_M.gguf"),
        ("Q4_K", "Qwen3-30B-A3B-Q4_K.gguf"),
        ("iq4_xs", "Qwen3-30B-A3B-IQ4_XS.gguf"),
        ("UD-Q2_K_XL", "Qwen3-30B-A3B-UD-Q2_K_XL.gguf"),
        ("Q2_K_XL", "Qwen3-30B-A3B-UD-Q2_K_XL.gguf"),
        ("Q2", "Qwen3-30B-A3B-UD-Q2_K_XL.gguf"),
        ("Q8_0", "Q8_0/Qwen3-30B-A3B-Q8_0-00001-of-00002.gguf"),
        ("BF16", "BF16/Qwen3-30B-A3B-BF16-00001-of-00002.GGUF"),
        ("Q8_0/Qwen3-30B-A3B-Q8_0-00002-of-00002.gguf", "Q8_0/Qwen3-30B-A3B-Q8_0-00002-of-00002.gguf"),
    ],
)
def test_a_word_means_the_one_file_that_has_it(word, file):
    name = parse_hub_name(f"unsloth/Qwen3-30B-A3B-GGUF@main:{word}")
    assert find_file(name, FILES) == HubName("unsloth/Qwen3-30B-A3B-GGUF", "main", file)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Q5_K_M", r"has no GGUF file of that name; it holds BF16/.*GGUF, Q8_0/.*, .* and 2 more$"),
        ("4_K_M", "has no GGUF file of that name"),
        ("Qwen3", r"has 6 such GGUF files \(BF16/.* and 2 more\); name one, as org/model:BF16/"),
        ("imatrix", "has no GGUF file of that name"),
    ],
)
def test_a_word_that_no_file_or_several_have_is_refused_with_what_is_there(word, said):
    with pytest.raises(CheckpointError, match=said):
        find_file(HubName("org/model", None, word), FILES)
