"""help() of compiled classes says what they are for, not only how they are called."""

from __future__ import annotations

import inspect

import pytest

import edgemoe._native as compiled

CLASSES = [
    found
    for module in (compiled, compiled.mixers)
    for name, found in inspect.getmembers(module, inspect.isclass)
    if found.__module__ == module.__name__
]


def explanation(member):
    """The docstring without the lines of signatures that come first."""
    lines = (member.__doc__ or "").splitlines()
    return "\n".join(line for line in lines if "->" not in line).strip()


def test_the_classes_are_found():
    assert {"Mamba2", "ExpertStream", "Loads", "LoadFailed"} <= {found.__name__ for found in CLASSES}


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_a_class_and_what_it_can_do_are_explained(found):
    assert found.__doc__
    for name, member in vars(found).items():
        if not name.startswith("_"):
            member = getattr(member, "__func__", member)
            assert explanation(member), f"{found.__name__}.{name} has no docstring"
