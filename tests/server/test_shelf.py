"""The names by which a server offers its stores."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("starlette")

from edgemoe.errors import RequestError
from edgemoe.server.shelf import name_stores


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("qwen.store", "qwen"),
        ("a folder/Qwen3-30B.GGUF", "Qwen3-30B"),
        ("olmoe", "olmoe"),
        (".", "here"),
        ("../here/.store", ".store"),
    ],
)
def test_names_are_those_of_folders_and_files(tmp_path, monkeypatch, given, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert list(name_stores([Path(given)], [])) == [name]


def test_a_link_has_its_own_name_and_not_a_checksum_s(tmp_path):
    blob, link = tmp_path / "6e4c38e1172f42fd", tmp_path / "olmoe-q4.gguf"
    blob.touch()
    link.symlink_to(blob)
    assert name_stores([link], []) == {"olmoe-q4": link}


def test_two_stores_of_one_name_need_an_alias():
    one, two = Path("a/m.gguf"), Path("b/m.gguf")
    with pytest.raises(RequestError, match=r"two stores are called 'm'; give each its own --alias"):
        name_stores([one, two], [])
    assert name_stores([one, two], ["first"]) == {"first": one, "m": two}
