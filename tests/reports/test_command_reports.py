"""Commands as people use them: conversations, prompts, results that stay, refusals before the work."""

from __future__ import annotations

import codecs
import inspect
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from edgemoe.cli.lines import read_message
from edgemoe.cli.main import main
from edgemoe.cli.output import new_table, print_json, print_table, quoted
from edgemoe.cli.wrapping import WordWrap
from edgemoe.engine.perplexity import perplexity_of

COMMAND = [sys.executable, "-m", "edgemoe"]
OPTIONS = ["--memory", "300MiB", "--seed", 1]


def edgemoe(*arguments, text=None, **options):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=text, capture_output=True, text=True, check=False, timeout=120, **options,
    )  # fmt: skip


def talk(store, *lines, options=()):
    """What a conversation prints, and what it says besides; line by line of input."""
    return edgemoe(
        "chat", store, *OPTIONS, "--max-tokens", 6, *options, text="".join(f"{x}\n" for x in lines)
    )


def test_one_newline_of_stdin_is_the_shell_s(tiny_store):
    def tokens(*arguments, text=None):
        done = edgemoe("run", tiny_store, *OPTIONS, "--max-tokens", 2, "--json", *arguments, text=text)
        return json.loads(done.stdout)["num_prompt_tokens"]

    assert (
        tokens(text="a river\n")
        == tokens("a river")
        == tokens("-p", "a river")
        == tokens("-", text="a river")
    )
    assert tokens(text="a river\r\n") == tokens("a river")
    assert tokens(text="a river\n\n") == tokens("a river\n")


def test_a_prompt_is_given_once_and_options_of_a_chat_need_one(tiny_store):
    for arguments, message in (
        (["a", "-p", "b"], "given twice"),
        (["a", "--system", "b"], "give --chat too"),
        (["a", "--chat", "--template-option", "thinking"], "give NAME=VALUE"),
    ):
        done = edgemoe("run", tiny_store, *arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stdout == ""


def test_run_asks_with_the_template_or_says_how(tiny_store):
    plain = edgemoe("run", tiny_store, "hi", *OPTIONS, "--max-tokens", 3)
    (hint,) = (line for line in plain.stderr.splitlines() if line.startswith("hint:"))
    command = shlex.split(hint.partition("ask with it: ")[2])
    asked = edgemoe(*command[1:], "hi", *OPTIONS, "--max-tokens", 3, "--json")
    prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    same = edgemoe("run", tiny_store, prompt, *OPTIONS, "--max-tokens", 3, "--json")
    assert json.loads(asked.stdout)["token_ids"] == json.loads(same.stdout)["token_ids"]


def test_results_are_on_stdout_and_all_else_on_stderr(tiny_store):
    done = edgemoe("run", tiny_store, "a river", *OPTIONS, "--max-tokens", 5)
    record = json.loads(edgemoe("run", tiny_store, "a river", *OPTIONS, "--max-tokens", 5, "--json").stdout)
    assert done.stdout == record["text"] + "\n"
    assert "cut after 5 tokens; --max-tokens takes more" in done.stderr


def test_a_conversation_says_where_answers_were_cut(tiny_store):
    done = talk(tiny_store, "Hello", options=["--temperature", 2])
    assert "qwen3_moe, context 128 tokens, budget 300.00 MiB" in done.stderr
    assert "sampling: temperature 2" in done.stderr
    assert "cut after 6 tokens" in done.stderr or "stop" in done.stderr


def test_a_full_context_is_no_dead_end(tiny_store):
    long = "x" * 60
    done = talk(tiny_store, long, long, "/drop", "/stats", long, "/reset", "ok")
    assert done.returncode == 0, done.stderr
    assert "do not fit the context of 128" in done.stderr
    assert "/drop forgets the oldest turn" in done.stderr
    assert "--drop-oldest does the first by itself" in done.stderr
    dropping = talk(tiny_store, long, long, long, options=["--drop-oldest"])
    assert "forgot the 1 oldest turn" in dropping.stderr
    assert "do not fit" not in dropping.stderr


def test_slashes_lines_and_commands(tiny_store, tmp_path):
    path = tmp_path / "talk.json"
    done = talk(
        tiny_store, "//help me", "one \\", "two", '"""', "three", "", "four", '"""', "/help", "/nothing",
        f"/save {path}", f"/save {path}", "/reset", f"/load {path}", "/retry", "/load", f"/load {tiny_store}",
        "/exit",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = [m["content"] for m in json.loads(path.read_text())["messages"] if m["role"] == "user"]
    assert asked == ["/help me", "one \ntwo", "three\n\nfour"]
    for said in (
        "/retry ",
        "no command /nothing",
        f"wrote {path}",
        "6 messages",
        "give the name",
        "cannot be read",
    ):
        assert said in done.stderr, said
    path.write_text("[1]")
    assert "is no saved conversation" in talk(tiny_store, f"/load {path}").stderr
    assert "exists; choose another name" in talk(tiny_store, "hi", f"/save {path}").stderr
    assert path.read_text() == "[1]"


def test_a_conversation_for_programs_is_one_object_a_line(tiny_store):
    done = talk(tiny_store, "Hello", "Again", options=["--json"])
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 2
    assert all(record["token_ids"] for record in records)


class Terminal:
    """A command in a terminal of its own: type into it, read what it shows."""

    def __init__(self, *command):
        self.child, self.terminal = pty.fork()
        if self.child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where a shell has pytest in the background
            environment = {**os.environ, "TERM": "xterm", "COLUMNS": "40", "LINES": "20"}
            os.execve(sys.executable, [*map(str, command)], environment)
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end within a character

    def until(self, pattern):
        while not re.search(pattern, self.seen):
            self.seen += self._decoder.decode(os.read(self.terminal, 4096))
        before, self.seen = self.seen, ""
        return before

    def type(self, text):
        os.write(self.terminal, text.encode())

    def end(self):
        _, status = os.waitpid(self.child, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


def test_a_conversation_in_a_terminal(tiny_store):
    terminal = Terminal(*COMMAND, "chat", tiny_store, *OPTIONS, "--max-tokens", 30, "--temperature", 2)
    terminal.until(r"> $")
    terminal.type("a\\\r")
    terminal.until("… $")
    terminal.type("b\r")
    terminal.until(r"b\r\n[\s\S]*\n> $")  # the answer, and the prompt after it
    terminal.type("\x03")  # Ctrl-C at the prompt drops the line
    terminal.until(r"Ctrl-D ends[\s\S]*> $")
    terminal.type("/stats\r")
    assert "tokens" in terminal.until(r"used\][\s\S]*> $")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_an_interrupt_before_the_wait_for_a_line_is_not_lost():
    """The hook is called when the prompt is shown and the wait has not begun."""
    script = """
import _thread, readline
from edgemoe.cli.lines import read_message
readline.set_pre_input_hook(_thread.interrupt_main)
read_message()
"""
    terminal = Terminal(sys.executable, "-c", script)
    terminal.until("Ctrl-D ends")  # nothing was typed
    os.kill(terminal.child, signal.SIGKILL)
    assert terminal.end() == -signal.SIGKILL


def test_words_are_broken_at_the_width():
    wrap = WordWrap(10)
    shown = (
        "".join(map(wrap.push, ["aaa bb", "b cc", "cc ddd", "\neee ", "ffffffffffff", " g"])) + wrap.flush()
    )
    assert shown == "aaa bbb\ncccc ddd\neee\nffffffffffff\ng"
    assert all(len(line) <= 10 or " " not in line for line in shown.splitlines())
    wide = WordWrap(6)
    assert wide.push("漢漢 漢漢 ") + wide.flush() == "漢漢\n漢漢"
    assert WordWrap(None).push("a  b ") == "a  b "


def test_what_is_typed(monkeypatch):
    import io

    def typed(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        found = []
        while (message := read_message()) is not None:
            found.append(message)
        return found

    assert typed('"""one line"""\n"""first\nlast"""\n  plain  \n') == ["one line", "first\nlast", "plain"]
    assert typed("ends \\") == ["ends"]
    assert typed('"""\nnever closed') == ["never closed"]


def test_what_cannot_be_written_or_drawn_is_refused_before_the_work(tiny_store, tiny_checkpoint, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a river " * 50)
    nowhere = tmp_path / "none" / "out"
    for arguments in (
        ["trace", tiny_store, "--text", text, "-o", nowhere],
        ["profile", tiny_checkpoint, "--text", text, "-o", nowhere],
        ["plan", tiny_checkpoint, "--text", text, "--tolerance", "2%", "-o", nowhere],
        ["simulate", tmp_path / "no.trace", "--picture", nowhere],
        ["report", tmp_path / "no.profile", "-o", nowhere],
    ):
        done = edgemoe(*arguments)
        assert done.returncode == 2, arguments
        assert "there is no folder" in done.stderr, (arguments, done.stderr)
    assert not nowhere.parent.exists()


def test_next_lines_can_be_pasted(tiny_checkpoint, tmp_path):
    out = tmp_path / "a store; with $signs"
    done = edgemoe("convert", tiny_checkpoint, out, "--bits", 4)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("next: "))
    again = edgemoe(*shlex.split(line.removeprefix("next: "))[1:], *OPTIONS, "--max-tokens", 2)
    assert again.returncode == 0, again.stderr
    described = json.loads(edgemoe("inspect", out, "--json").stdout)
    assert described["plan"]["source"] == tiny_checkpoint.name
    assert described["has_chat_template"]
    assert described["max_context"] == 128
    assert not described["is_fitted"]


NAMES = [
    "a b",
    "it's",
    'say "x"',
    "$HOME;`x`",
    "new\nline",
    "tab\t8",
    "\\back\\'\n",
    "é中",
    "\udcff\udcfe1",
    "",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_of_a_file_can_be_pasted(name):
    line = quoted("printf", "%s", name)
    assert line.isprintable()
    shown = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert shown == os.fsencode(name)


def test_files_of_conversations_are_refused_in_a_line(tiny_store, tmp_path):
    half = tmp_path / "half.json"
    half.write_text('{"messages": [{"role": "user", "content": "\\ud800"}]}', encoding="utf-8")
    lines = ["/load ~nobody-here/a", "/save ~nobody-here/a", "/load a\0b", "/save a\0b", f"/load {half}"]
    said = talk(tiny_store, *lines, "hi")
    assert said.returncode == 0
    assert "defect" not in said.stderr
    assert said.stderr.count("is no name of a file") == 2
    assert "is no saved conversation" in said.stderr
    assert said.stdout.strip()


def test_an_answer_is_kept_where_asking_again_fails(tiny_store):
    import edgemoe
    from edgemoe.cli.conversation import Conversation, Turns

    with edgemoe.load(tiny_store, "2GiB") as model:
        options = {"max_tokens": 4, "temperature": 0.0}
        turns = Turns(model, None, options, {})
        talk = Conversation(turns)
        assert talk._answer("hi")
        before = list(turns.messages)
        turns.options = {**options, "stop": 5}
        talk._retry()
        assert turns.messages == before


def test_the_view_of_experts_can_be_read_in_a_pipe(tiny_store):
    done = edgemoe("run", tiny_store, "a river", *OPTIONS, "--max-tokens", 4, "--watch")
    plain = edgemoe("run", tiny_store, "a river", *OPTIONS, "--max-tokens", 4)
    assert done.stdout == "a river" + plain.stdout
    assert "one mark per expert" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert len(set("·▪■▲×") & set(done.stderr)) == 5  # told apart without colour


def test_keys_for_programs_are_identifiers(tiny_store):
    def check(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                assert re.fullmatch(r"[a-z][a-z0-9_/]*", key), key
                check(inner)

    check(json.loads(edgemoe("inspect", tiny_store, "--memory", "300MiB", "--json").stdout))
    check(json.loads(edgemoe("run", tiny_store, "a", *OPTIONS, "--max-tokens", 1, "--json").stdout))


def test_every_command_has_json(tiny_store, monkeypatch, tmp_path, capsys):
    from edgemoe.cli.app import COMMANDS

    assert all("as_json" in inspect.signature(command).parameters for command in COMMANDS.values())
    assert main(["push", str(tiny_store), "a/b", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"].startswith("---")
    monkeypatch.setenv("EDGEMOE_HOME", str(tmp_path))
    shutil.copytree(tiny_store, tmp_path / "stores" / "tiny")
    assert main(["remove", "tiny", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": str(tmp_path / "stores" / "tiny")}


def test_numbers_that_json_lacks_are_null(capsys):
    print_json({"perplexity": perplexity_of(1e4), "of": [float("nan"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"perplexity": None, "of": [None, 1.5]}


def test_the_shell_completes_commands():
    environment = {
        **os.environ,
        "_EDGEMOE_COMPLETE": "complete_bash",
        "COMP_WORDS": "edgemoe ins",
        "COMP_CWORD": "1",
    }
    done = edgemoe(env=environment)
    assert done.stdout.split() == ["inspect"]
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["enable_thinking=false", "style=short", "numbers=[1, 2]"])
def test_options_of_a_template(name):
    from edgemoe.cli.given import template_options

    found = template_options([name])
    assert found in ({"enable_thinking": False}, {"style": "short"}, {"numbers": [1, 2]})


@pytest.mark.parametrize("host", ["..", "a" * 64 + ".example", "\udcff"])
def test_an_address_that_cannot_be_is_refused_before_the_work(tmp_path, capsys, host):
    assert main(["serve", str(tmp_path / "none.store"), "--host", host]) == 2
    assert "no name or address; give one, such as 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\x1b[31mred", "a[red]b", "a:fire:b", "[bold]"])
def test_names_of_files_are_shown_as_they_are(tiny_store, tmp_path, capsys, name):
    """They are those of strangers: a terminal obeys none, and nothing of them is markup."""
    out = tmp_path / f"{name}.gguf"
    assert main(["export", str(tiny_store), str(out)]) == 0
    written = capsys.readouterr()
    assert "\x1b" not in written.out + written.err
    shown = name.replace("\x1b", "\\x1b")
    assert f"exporting to {shown}.gguf" in written.err
    assert f"wrote {tmp_path}/{shown}.gguf" in written.err


@pytest.mark.parametrize("is_narrow", [False, True])
@pytest.mark.parametrize("columns", ["1", "20", "33", "80"])
def test_no_number_is_cut_in_a_terminal_of_any_width(capsys, monkeypatch, columns, is_narrow):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table = new_table("budget", "part", "formats", "size", "share", is_narrow=is_narrow)
    table.add_row("process and tokenizer", "q4/q4/q4 ×24", "133.50 KiB", "24.0%")
    print_table(table)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert all(number in shown for number in ("133.50", "24.0%"))


@pytest.mark.parametrize("name", ["a[red]b", "a:fire:b", "[bold]"])
def test_names_in_tables_are_shown_as_they_are(capsys, name):
    table = new_table("stores", "name", "size")
    table.add_row(name, "1 GiB")
    print_table(table)
    assert name in capsys.readouterr().out
