"""What the documents say is what the project does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

import edgemoe

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [
    *PAGES,
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "native", "training", "models/edgemoe-16m")),
]
RECORDS = ("CHANGELOG.md", "log.md")  # they may speak of files that have gone


def check(script):
    return subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], check=False).returncode


def test_help_and_file_map_are_up_to_date():
    assert check("generate-docs") == 0
    assert check("generate-file-map") == 0
    assert check("generate-models") == 0


def test_everything_exported_is_importable_and_documented():
    for name in edgemoe.__all__:
        assert getattr(edgemoe, name).__doc__ or name == "__version__"
    assert edgemoe.__version__ in (ROOT / "pyproject.toml").read_text()


def test_importing_stays_light():
    program = "import sys, edgemoe; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert not {"numpy", "torch", "rich", "typer", "tokenizers"} & set(loaded.split())


def anchors(document):
    """What links may name after a # in a document: its headings as GitHub spells them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", document.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        led_to = document.parent / path if path else document
        assert led_to.exists(), target
        assert not anchor or anchor in anchors(led_to), target


@pytest.fixture(scope="module")
def sources():
    """Paths of all source files, each with a / before it."""
    folders = ("src", "native", "tests", "benchmarks", "training")
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.*"))
    return ["/" + path.relative_to(ROOT).as_posix() for path in found]


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name not in RECORDS], ids=str)
def test_source_files_that_documents_name_exist(document, sources):
    text = document.read_text(encoding="utf-8").replace("{h,cpp}", "cpp")
    for name in re.findall(r"`(?:\w+ )?([a-z][a-z0-9_/]*\.(?:py|cpp|h))\b", text):
        assert any(path.endswith(f"/{name}") for path in sources), name


def test_the_layers_of_the_architecture_page_are_those_that_are_checked():
    section = (ROOT / "docs" / "architecture.md").read_text().split("\n## Layers\n")[1].split("\n## ")[0]
    drawn = [line.strip().split("  ")[0] for line in section.splitlines() if line.startswith("    ")]
    configured = (ROOT / "pyproject.toml").read_text().split("\nlayers = [\n")[1].split("\n]")[0]
    assert drawn == re.findall(r'"(.+)"', configured)


def commands_of(text):
    """Command and options of every ``edgemoe ...`` in code of a document."""
    text = text.replace("\\\n", " ")
    code = [
        *re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL),
        *re.findall(r"`([^`\n]+)`", text),
    ]
    for line in "\n".join(code).splitlines():
        for part in re.split(r"&&|[|;]", line.split(" #")[0]):
            words = part.split()
            if words[:1] == ["edgemoe"] and len(words) > 1:
                options = [word.split("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)]
                yield words[1], options


@pytest.mark.parametrize("document", PAGES, ids=str)
def test_commands_and_options_that_documents_show_exist(document):
    import typer

    from edgemoe.cli.app import app

    known = {
        name: {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command in typer.main.get_command(app).commands.items()
    }
    for command, options in commands_of(document.read_text(encoding="utf-8")):
        if command.isalpha():  # and no option of all commands, or dots that stand for any
            assert set(options) <= known[command] | {"--help", "-h", "--debug"}, command


def test_readme_errors_of_the_formats_are_what_is_measured():
    import numpy as np

    from edgemoe import native

    weights = np.random.default_rng(0).standard_normal((128, 4096)).astype(np.float32)
    rows = re.findall(r"^\| (t?\d) \| ([\d.]+) \| ([\d.]+) % \|$", README, re.MULTILINE)
    assert [bits for bits, _, _ in rows] == ["t2", "2", "t3", "3", "4", "6", "8"]
    for bits, bpw, percent in rows:
        format = bits if bits.startswith("t") else f"q{bits}"
        error = native.dequantize(native.quantize(weights, format), format, *weights.shape) - weights
        assert abs(100 * np.sqrt((error**2).mean()) - float(percent)) < 0.15
        assert abs(native.bits_per_weight(format) - float(bpw)) < 0.05


def test_the_table_of_exact_formats_is_that_of_the_code():
    from edgemoe import native

    text = (ROOT / "docs" / "quantization.md").read_text()
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| [\d.]+ \| ([\d.]+) \|$", text, re.MULTILINE)
    exact = [t for t in native.FORMAT_TRAITS.values() if t.packs_blocks]
    assert rows == [(t.block_type, t.name, f"{native.bits_per_weight(t.name):.4g}") for t in exact]


def test_the_calls_of_the_python_page_run(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "api.md").read_text()
    section = page[page.index("## What the commands do") :]
    calls, planned = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OLMoE-1B-7B").symlink_to(tiny_checkpoint)
    for name in ("book.txt", "chat.txt"):
        (tmp_path / name).write_text("Once upon a time there was a river. " * 30)
    names: dict[str, object] = {}
    exec(compile(calls, "api.md", "exec"), names)
    assert "q4/q4/q4" in capsys.readouterr().out
    assert (tmp_path / "olmoe3.store" / "edgemoe.json").exists()
    # What takes hours is not run, but its options are those that there are.
    for name in ("convert_model", "plan_widths"):
        monkeypatch.setattr(edgemoe, name, MagicMock())
    exec(compile(planned, "api.md", "exec"), names)
    assert edgemoe.plan_widths.call_args.args[3].tolerance == "2%"


def test_the_python_page_has_a_call_for_every_command():
    from edgemoe.cli.app import COMMANDS

    page = (ROOT / "docs" / "api.md").read_text()
    table = page.split("| command | call | options |\n")[1].split("\n\n")[0]
    named = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(COMMANDS)


def test_readme_has_the_two_commands_that_ci_uses():
    assert "pip install . && edgemoe demo" in README
    assert 'pip install ".[test,check]" && scripts/test' in README
