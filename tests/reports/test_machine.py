"""Machines as people have them: containers, odd locales, closed streams, signals at any time."""

from __future__ import annotations

import json
import math
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgemoe import cgroups, native
from edgemoe.bench import machine_speed
from edgemoe.cli.main import main
from edgemoe.engine import machine
from edgemoe.engine.budget import check_budget
from edgemoe.errors import RequestError
from edgemoe.units import MIB

COMMAND = [sys.executable, "-m", "edgemoe"]
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}


def edgemoe(*arguments, **options):
    options = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 120, **options}
    return subprocess.run([*COMMAND, *map(str, arguments)], check=False, **options)


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(str(content))
    return folder


STAT = f"anon {20 * MIB}\nfile {380 * MIB}\ninactive_file {300 * MIB}\nactive_file {60 * MIB}\n"


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory__max": 400 * MIB, "memory__current": 390 * MIB, "memory__stat": STAT}, (400, 370)),
        (
            {
                "memory__max": 400 * MIB,
                "memory__current": 390 * MIB,
                "memory__stat": STAT + f"slab_reclaimable {5 * MIB}\n",
            },
            (400, 375),
        ),
        # Shared memory and what only processes hold cannot be given up, cached or not.
        ({"memory__max": 400 * MIB, "memory__current": 390 * MIB, "memory__stat": "anon 1\n"}, (400, 10)),
        ({"memory__max": 400 * MIB, "memory__current": 390 * MIB}, (400, 10)),
        (
            {
                "memory__max": "max",
                "memory__high": 300 * MIB,
                "memory__current": 290 * MIB,
                "memory__stat": STAT,
            },
            (300, 300),
        ),
        ({"memory__max": "max", "memory__high": "max", "memory__current": 290 * MIB}, None),
        (
            {
                "memory__limit_in_bytes": 400 * MIB,
                "memory__usage_in_bytes": 390 * MIB,
                # Its own pages, and after "total_" those of the groups below, which its usage counts too.
                "memory__stat": f"inactive_file 0\nactive_file 0\ntotal_inactive_file {300 * MIB}\n"
                f"total_active_file {60 * MIB}\n",
            },
            (400, 370),
        ),
        ({"memory__limit_in_bytes": 9223372036854771712, "memory__usage_in_bytes": 5}, None),
    ],
)
def test_file_pages_count_as_free_in_a_cgroup(tmp_path, monkeypatch, files, room):
    group(tmp_path, **files)
    monkeypatch.setattr(machine, "cgroup_folders", lambda _: iter([tmp_path]))
    found = machine.cgroup_room()
    assert found == (None if room is None else (room[0] * MIB, room[1] * MIB))


def test_the_tightest_of_nested_cgroups_counts(tmp_path, monkeypatch):
    outer = group(tmp_path / "outer", memory__max=500 * MIB, memory__current=480 * MIB)
    inner = group(outer / "inner", memory__max=400 * MIB, memory__current=100 * MIB)
    monkeypatch.setattr(machine, "cgroup_folders", lambda _: iter([inner, outer]))
    assert machine.cgroup_room() == (500 * MIB, 20 * MIB)
    assert machine.total_memory_bytes() == (400 * MIB, "its cgroup allows")


@pytest.mark.parametrize(
    ("groups", "mounts", "folders"),
    [
        ("0::/a/b", "30 1 0:2 / /cg rw - cgroup2 cgroup2 rw", ["/cg/a/b", "/cg/a", "/cg"]),
        # A container that sees its own group as the root, with and without a namespace of its own.
        ("0::/", "30 1 0:2 / /cg rw - cgroup2 cgroup2 rw", ["/cg"]),
        ("0::/docker/x", "30 1 0:2 /docker/x /cg rw - cgroup2 cgroup2 rw", ["/cg"]),
        ("0::/docker/x/y", "30 1 0:2 /docker/x /cg rw - cgroup2 cgroup2 rw", ["/cg/y", "/cg"]),
        ("0::/../other", "30 1 0:2 / /cg rw - cgroup2 cgroup2 rw", ["/cg/other", "/cg"]),
        ("4:memory:/a\n1:cpu:/z", "30 1 0:2 / /m rw - cgroup cgroup rw,memory", ["/m/a", "/m"]),
        ("5:cpu,memory:/a", "30 1 0:2 / /m rw - cgroup cgroup rw,cpu,memory", ["/m/a", "/m"]),
    ],
)
def test_cgroups_are_found_where_they_are_mounted(monkeypatch, groups, mounts, folders):
    texts = {"/proc/self/cgroup": groups, "/proc/self/mountinfo": mounts}
    monkeypatch.setattr(Path, "read_text", lambda path, **_: texts[str(path)])
    assert list(map(str, cgroups.cgroup_folders("memory"))) == folders


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.cfs_quota_us": "60000", "cpu.cfs_period_us": "100000"}, 0.6),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_processors_are_as_many_as_the_cgroup_has_time_for(tmp_path, monkeypatch, files, allowed):
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n", encoding="ascii")
    monkeypatch.setattr(cgroups, "cgroup_folders", lambda _: iter([tmp_path]))
    assert cgroups.allowed_processors() == allowed
    if allowed is not None:
        assert native.usable_processors() == min(len(os.sched_getaffinity(0)), math.ceil(allowed))


def test_without_proc_the_system_is_asked(monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert 0 < machine.available_memory_bytes()[0] <= machine.total_memory_bytes()[0]
    assert machine.resident_bytes() > MIB
    assert machine.peak_resident_bytes() > MIB
    assert machine.describe_machine().cpu


def test_an_old_kernel_does_not_say_what_is_available(monkeypatch):
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 400 kB\nShmem: 30 kB\nHuge: 3\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert machine._meminfo() == {"MemTotal": 1000 * 1024, "MemAvailable": 520 * 1024}


def test_a_budget_above_the_cgroup_is_refused_and_above_what_is_free_warned_of(tmp_path, monkeypatch):
    group(tmp_path, memory__max=400 * MIB, memory__current=390 * MIB)
    monkeypatch.setattr(machine, "cgroup_folders", lambda _: iter([tmp_path]))
    with pytest.raises(
        RequestError, match=r"500\.00 MiB is more than the 400\.00 MiB that its cgroup allows"
    ):
        check_budget(500 * MIB)
    monkeypatch.setattr("edgemoe.engine.budget.resident_bytes", lambda: 0)
    assert "more than the 10.00 MiB left below the cgroup's limit" in check_budget(300 * MIB)
    assert check_budget(9 * MIB) is None


def test_a_budget_above_the_machine_is_one_line(tiny_store):
    done = edgemoe("run", tiny_store, "--memory", "900TiB", "-p", "x")
    assert done.returncode == 2
    # A slow machine says first that it is loading.
    said = [line for line in done.stderr.splitlines() if not line.startswith("loading ")]
    assert len(said) == 1
    assert "that this machine has" in said[0]


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LANG": "POSIX"}, {"PYTHONIOENCODING": "iso-8859-1"}, {"PYTHONUTF8": "0"}]
)
def test_text_is_utf8_whatever_the_locale(tiny_store, locale):
    options = ["--memory", "300MiB", "--max-tokens", 3, "--json"]
    plain = edgemoe("run", tiny_store, *options, input="Grüße 漢", env=PLAIN | {"LC_ALL": "C.UTF-8"})
    odd = edgemoe("run", tiny_store, *options, input="Grüße 漢", env=PLAIN | locale)
    assert odd.returncode == 0, odd.stderr
    assert json.loads(odd.stdout)["token_ids"] == json.loads(plain.stdout)["token_ids"]
    assert json.loads(odd.stdout)["num_prompt_tokens"] == json.loads(plain.stdout)["num_prompt_tokens"]


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_names_of_stores_are_bytes_whatever_the_locale(tiny_store, tmp_path, locale):
    store = shutil.copytree(tiny_store, tmp_path / "漢 é")
    options = ["--memory", "300MiB", "--max-tokens", "1", "--json"]
    done = edgemoe("run", store, "a 漢", *options, env=PLAIN | locale)
    assert done.returncode == 0, done.stderr
    right = edgemoe("run", tiny_store, "a 漢", *options, env=PLAIN | {"LC_ALL": "C.UTF-8"})
    assert json.loads(done.stdout)["num_prompt_tokens"] == json.loads(right.stdout)["num_prompt_tokens"]


def test_no_file_is_opened_in_the_encoding_of_the_locale(tiny_store):
    strict = [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-m", "edgemoe"]
    for rest in (["run", tiny_store, "-p", "x", "--max-tokens", "1"], ["inspect", tiny_store, "--verify"]):
        done = subprocess.run([*strict, *map(str, rest)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("closing", "code", "said"),
    [("<&-", 2, "the prompt is empty"), (">&-", 0, ""), ("2>&-", 0, ""), ("<&- >&- 2>&-", 2, "")],
)
def test_closed_streams_are_no_defect(tiny_store, closing, code, said):
    prompt = "" if "<" in closing else "-p x"
    line = f"{' '.join(COMMAND)} run {tiny_store} {prompt} --memory 300MiB --max-tokens 2 {closing}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code
    assert said in done.stderr
    assert "defect" not in done.stderr + done.stdout


def test_a_full_disk_under_stdout_is_one_line(tiny_store):
    with open("/dev/full", "w") as full:
        done = edgemoe(
            "inspect", tiny_store, "--json", capture_output=False, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith(str(tiny_store))]) == 1


def test_nobody_who_reads_is_no_error(tiny_store):
    line = f"{' '.join(COMMAND)} inspect {tiny_store} --json | true"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


NO_THREADS = """
import resource, sys
import numpy as np
from edgemoe import native
from edgemoe.errors import StoreError
from edgemoe.store import open_reader
native.set_num_threads(1)
rng = np.random.default_rng(0)
weights, x = (rng.standard_normal((rows, 512)).astype(np.float32) for rows in (2048, 4))
packed = native.Matrix(native.quantize(weights, "q8"), "q8", *weights.shape)
right = native.matmul(x, packed)
with open("/proc/self/statm") as statm:
    size = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), resource.RLIM_INFINITY))  # no room for a stack
native.set_num_threads(4)
assert (native.matmul(x, packed) == right).all()
print(native.get_num_threads())
try:
    open_reader([sys.argv[1]], kind="direct")
except StoreError as error:
    print(error)
"""


def test_where_no_thread_can_be_made_one_computes(tiny_store):
    path = next(tiny_store.glob("experts-*.safetensors"))
    done = subprocess.run(
        [sys.executable, "-c", NO_THREADS, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    threads, refusal = done.stdout.splitlines()
    assert threads == "1"
    assert refusal.startswith("no thread can be made to read with")


def test_products_of_no_rows_are_empty():
    weights = np.ones((64, 64), np.float32)
    none = np.zeros((0, 64), np.float32)
    for format in ("q4", "q8", "f32"):
        matrix = native.Matrix(native.quantize(weights, format), format, 64, 64)
        assert native.matmul(none, matrix).shape == (0, 64)
        assert native.expert_ffn(none, matrix, matrix, matrix, "silu").shape == (0, 64)


INTERRUPTED = """
import os, signal, sys
module, number, *arguments = sys.argv[1:]
class Interrupt:
    def find_spec(self, name, *_):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Interrupt())
sys.argv = ["edgemoe", *arguments]
from edgemoe.__main__ import start
sys.exit(start())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["edgemoe.cli", "edgemoe.cli.app", "edgemoe.store", "rich.console"])
def test_a_signal_during_any_import_prints_no_traceback(tiny_store, module, number):
    arguments = [module, int(number), "inspect", tiny_store, "--memory", "300MiB"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode in (-number, 128 + number), done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


def test_ctrl_c_while_text_becomes_code_has_its_exit_code():
    """Python ends such a process by the signal, though it was caught: callers would not see our code."""
    code = (
        "import sys, edgemoe.cli.app as app\n"
        "app.run_app = lambda _: exec('raise KeyboardInterrupt')\n"
        "from edgemoe.__main__ import start\n"
        "sys.exit(start())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "edgemoe: interrupted\n")


@pytest.mark.parametrize(
    ("kind", "limit", "message"),
    [
        (resource.RLIMIT_FSIZE, 0, "files of this size are not allowed here; raise the limit (ulimit -f)"),
        (resource.RLIMIT_NOFILE, 10, "no more files can be opened; raise the limit (ulimit -n)"),
    ],
)
def test_limits_of_the_shell_are_one_line(tiny_store, tmp_path, kind, limit, message):
    (tmp_path / "text.txt").write_text("Once upon a time there was a river. " * 50)
    arguments = ["trace", tiny_store, "--text", tmp_path / "text.txt", "-o", tmp_path / "trace"]
    done = subprocess.run(
        [sys.executable, "-m", "edgemoe", *map(str, arguments), "--max-tokens", "200", "--memory", "300MiB"],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(message)
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_user_without_a_home_has_no_library(tiny_store, monkeypatch, capsys):
    def unknown(*_):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("EDGEMOE_HOME", raising=False)
    for name in ("user_data_path", "user_cache_path"):
        monkeypatch.setattr(f"platformdirs.{name}", unknown)
    assert main(["list"]) == 2
    assert "this user has no home; set HOME or XDG_DATA_HOME" in capsys.readouterr().err
    assert main(["inspect", "no-such-store"]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["inspect", str(tiny_store)]) == 0


def test_without_a_thread_for_it_there_is_no_bar(tiny_store, monkeypatch, capsys):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("rich.progress.Progress.start", refuse)
    assert main(["inspect", str(tiny_store), "--verify"]) == 0
    assert "defect" not in capsys.readouterr().err


@pytest.mark.parametrize("free", [30 * MIB, 30 * MIB + 13])
def test_speed_is_measured_within_what_is_free(monkeypatch, free):
    monkeypatch.setattr(machine_speed, "available_memory_bytes", lambda: (free, ""))
    sizes = []

    def read(buffer):
        sizes.append(len(buffer))
        return native.read_memory(buffer)

    monkeypatch.setattr(machine_speed, "read_memory", read)
    assert machine_speed.measure_memory() > 0
    assert set(sizes) == {10 * MIB}


def test_products_are_timed_in_the_format_asked_for(monkeypatch):
    monkeypatch.setattr(machine_speed, "available_memory_bytes", lambda: (30 * MIB, ""))
    seen = []

    def multiply(x, matrix, out):
        seen.append((matrix.format, len(matrix.packed)))
        return native.matmul(x, matrix, out)

    monkeypatch.setattr(machine_speed, "matmul", multiply)
    assert machine_speed.measure_products("q4_k") > 0
    ((format, num_bytes),) = set(seen)
    assert format == "q4_k"
    assert 9 * MIB < num_bytes <= 10 * MIB


def test_chat_in_a_terminal_that_hangs_up_ends(tiny_store):
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*COMMAND, "chat", str(tiny_store), "--memory", "300MiB"])
    seen = b""
    while b"> " not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, 2, 141), seen


AT_START = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.modules.pop("typing", None)
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("module", ["typing", "edgemoe.__main__", "edgemoe.cli", "edgemoe.cli.main"])
@pytest.mark.parametrize("is_script", [True, False])
def test_ctrl_c_before_anything_is_imported(tmp_path, is_script, module):
    """Two ways to begin; what happens before the package is imported is the interpreter's."""
    script = tmp_path / "edgemoe"
    script.write_text("import sys\nfrom edgemoe.__main__ import start\nsys.exit(start())\n")
    begin = [str(script)] if is_script else ["-m", "edgemoe"]
    (tmp_path / "sitecustomize.py").write_text(AT_START.format(module=module))
    done = subprocess.run(
        [sys.executable, *begin, "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert "Traceback" not in done.stderr


def test_programs_that_use_the_package_keep_their_ctrl_c():
    code = "import signal, edgemoe; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
