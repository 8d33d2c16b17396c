"""The layers of the native core are those that its README draws."""

from __future__ import annotations

import re
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[2] / "native"
LINE = re.compile(r"    (\w+(?: \| \w+)*)  +\S.*")


def drawn_layers():
    """Folders by how far down they are drawn."""
    text = (NATIVE / "README.md").read_text(encoding="utf-8")
    drawing = text.split("\n\n    bindings", 1)[1].split("\n\n", 1)[0]
    lines = [match[1] for line in f"    bindings{drawing}".splitlines() if (match := LINE.fullmatch(line))]
    return {name: depth for depth, line in enumerate(lines) for name in line.split(" | ")}


def test_every_folder_of_code_is_a_layer():
    aside = {"tests", "third_party"}
    assert drawn_layers().keys() == {path.name for path in NATIVE.iterdir() if path.is_dir()} - aside


def test_includes_point_down():
    layers = drawn_layers()
    found = [
        (path.relative_to(NATIVE).as_posix(), included)
        for name in layers
        for path in sorted((NATIVE / name).rglob("*.*"))
        for included in re.findall(r'^#include "(\w+)/', path.read_text(encoding="utf-8"), re.MULTILINE)
        if included in layers
    ]
    assert len(found) > 300
    assert [
        (path, to) for path, to in found if (own := path.split("/")[0]) != to and layers[to] <= layers[own]
    ] == []
