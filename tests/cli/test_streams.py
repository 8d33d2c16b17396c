"""Commands called by programs that have other streams than a terminal's: their own, or closed ones."""

from __future__ import annotations

import io
import json
import sys

import pytest
from helpers.live_server import DEMO_STORE

from edgemoe.cli.main import main

STORY = ("demo", "--max-tokens", "3", "--prompt", "Once upon a time")
COMMANDS = (STORY, ("inspect", str(DEMO_STORE)), ("run", str(DEMO_STORE), "Once", "--max-tokens", "3"))


class Log:
    """A stream as loggers and consoles of windows make them: nothing but what ``print`` needs."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_stream_need_not_say_whether_it_is_a_terminal(command, monkeypatch, capsys):
    assert main(command) == 0
    expected = capsys.readouterr().out
    log = Log()
    monkeypatch.setattr(sys, "stdout", log)
    assert main(command) == 0
    assert log.text == expected


def test_closed_streams_are_as_if_there_were_none(monkeypatch, capsys):
    assert main([*STORY, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["text"]
    for name in ("stdin", "stderr"):
        monkeypatch.setattr(sys, name, closed())
    assert main([*STORY, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == expected
    assert main(["inspect", "no-such-store"]) == 2
    monkeypatch.setattr(sys, "stdout", closed())
    for command in COMMANDS:
        assert main(command) == 0
