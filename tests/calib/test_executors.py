"""Work items: computed by processes, on nodes of Ray or in jobs they give what this process gives."""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edgemoe.calib.widths import Profile, ProfileOptions
from edgemoe.calib.widths.ladder import UNIFORM, WIDTHS
from edgemoe.convert import convert, convert_in_parts
from edgemoe.errors import ConversionError, RequestError, WorkerError
from edgemoe.executors import Executor, ExecutorOptions, Here, Processes, Slurm, find_executor, run_items
from edgemoe.executors import worker as workers
from edgemoe.quant import BitPlan, ExpertFormats
from edgemoe.workflows.convert import ConvertOptions, convert_model

WINDOW = 32
WINDOWS = [np.random.default_rng(seed).integers(3, 320, WINDOW).tolist() for seed in range(20)]
OTHERS = [np.random.default_rng(seed).integers(3, 320, WINDOW).tolist() for seed in range(100, 106)]
TESTS = str(Path(__file__).parent)  # where other processes find the items of these tests
OPTIONS = ProfileOptions(WINDOW, "q8", 2 << 30)
# After this a test that waits for ever has failed.
LONG_S = 120
ON_RAY = ExecutorOptions("ray", memory_bytes=1 << 30)


@contextmanager
def quiet(description, unit):
    yield lambda done, total: None


@dataclass(frozen=True)
class Square:
    """The file of an item holds the square of its number, and one line for each time it was computed."""

    number: int
    folder: Path

    @property
    def name(self):
        return f"square of {self.number}"

    @property
    def output(self):
        return self.folder / f"{self.number}.txt"

    @property
    def attempts(self):
        path = self.folder / f"{self.number}.attempts"
        return len(path.read_text()) if path.exists() else 0


def square(item, kills_at=(), times=1, error=None):
    with (item.folder / f"{item.number}.attempts").open("a") as file:
        file.write("x")
    if item.number in kills_at and item.attempts <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    if error is not None:
        raise error
    item.output.write_text(str(item.number**2))


@dataclass
class Deadly:
    """An executor one of whose workers dies in every piece of work, before its first item or any other."""

    executor: Executor
    marks: Path
    num_works: int = 0

    def check(self):
        self.executor.check()

    def map(self, work, items, folder, finished):
        self.num_works += 1
        mark = self.marks / f"{self.num_works}.died"
        self.executor.map(partial(dying, work, mark), items, folder, finished)


def dying(work, mark, item):
    """The first worker to come here dies."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        work(item)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def profiled(checkpoint, folder, executor):
    with Profile.make(checkpoint, folder, lambda store: WINDOWS, quiet, OPTIONS, executor) as made:
        made.find_fast()
        made.find_exact()
        plans = [dict.fromkeys(made.ladder.keys, formats) for formats in (UNIFORM[0], mixed_formats())]
        qualities = made.measure_all(plans, OTHERS)
        found = {name: value for name, value in made.found.items() if "_s " not in name}
    return found, qualities


def mixed_formats():
    return ExpertFormats("q2", "q2", "q4")


@pytest.fixture(scope="module")
def here(tiny_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("here") / "profile"
    return (*profiled(tiny_checkpoint, folder, Here()), folder)


def agrees_with(here, checkpoint, folder, executor):
    """Numbers, qualities and stores to the last bit."""
    found, qualities = profiled(checkpoint, folder, executor)
    assert found == here[0]
    for ours, theirs in zip(qualities, here[1], strict=True):
        for field in ("num_tokens", "reference_nats", "nats", "divergence", "reference_hits", "hits"):
            assert np.array_equal(getattr(ours, field), getattr(theirs, field)), field
    for width in WIDTHS:
        for name in ("experts-00000.safetensors", "dense.safetensors", "edgemoe.json"):
            assert (folder / width / name).read_bytes() == (here[2] / width / name).read_bytes()
    assert not list(folder.glob("*.parts")) + list(folder.glob("scratch")) + list(folder.glob("workers"))
    return True


def test_two_processes_give_the_same_bits_though_some_die(here, tiny_checkpoint, tmp_path):
    executor = Deadly(Processes(2), tmp_path)
    assert agrees_with(here, tiny_checkpoint, tmp_path / "profile", executor)
    assert len(list(tmp_path.glob("*.died"))) == executor.num_works > 3


def test_jobs_give_the_same_bits(here, tiny_checkpoint, tmp_path):
    pytest.importorskip("submitit")
    assert agrees_with(here, tiny_checkpoint, tmp_path / "profile", Slurm(2, 1, cluster="local"))


@pytest.fixture(scope="module")
def two_nodes():
    """A Ray cluster of two nodes with a core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "memory": 4 << 30})
        cluster.add_node(num_cpus=1, memory=4 << 30)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.filterwarnings("default")  # Ray's own
def test_two_nodes_of_ray_give_the_same_bits_though_some_die(here, two_nodes, tiny_checkpoint, tmp_path):
    on_ray = find_executor(ExecutorOptions("ray", memory_bytes=OPTIONS.budget_bytes))
    executor = Deadly(on_ray, tmp_path)
    assert agrees_with(here, tiny_checkpoint, tmp_path / "profile", executor)
    assert len(list(tmp_path.glob("*.died"))) == executor.num_works > 3


@pytest.mark.filterwarnings("default")
def test_a_worker_of_ray_that_dies_is_replaced(two_nodes, tmp_path):
    items = [Square(number, tmp_path) for number in range(4)]
    run_items(find_executor(ON_RAY), partial(square, kills_at=(2,)), items, tmp_path)
    assert [int(item.output.read_text()) for item in items] == [0, 1, 4, 9]
    assert items[2].attempts == 2
    (tmp_path / "2.txt").unlink()
    with pytest.raises(WorkerError, match="square of 2: its worker died"):
        run_items(find_executor(ON_RAY), partial(square, kills_at=(2,), times=99), items, tmp_path)
    with pytest.raises(WorkerError, match=r"no node of the Ray cluster has 64 cores"):
        run_items(
            *(find_executor(replace(ON_RAY, num_cores=64)), square),
            *([Square(9, tmp_path)], tmp_path),
        )


ON_RAY_DRIVER = """
from functools import partial
from pathlib import Path
from edgemoe.executors import ExecutorOptions, find_executor, run_items
from test_executors import Square, square
items = [Square(number, Path.cwd()) for number in range(4)]
executor = find_executor(ExecutorOptions("ray", memory_bytes=1 << 30))
run_items(executor, partial(square, kills_at=(2,)), items, Path.cwd())
"""


def test_deaths_on_ray_leave_stdout_to_the_command(two_nodes, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY_DRIVER], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Square(2, tmp_path).attempts == 2
    assert done.stdout == ""


def test_an_item_whose_file_is_there_is_not_computed_again(tmp_path):
    items = [Square(number, tmp_path) for number in range(5)]
    run_items(Here(), square, items[:3], tmp_path)
    told, progress = [], []
    run_items(Processes(2), square, items, tmp_path, lambda *done: progress.append(done), told.append)
    assert [item.attempts for item in items] == [1] * 5
    assert sorted(item.number for item in told) == [0, 1, 2, 3, 4]
    assert progress == [(done, 5) for done in range(1, 6)]


def test_a_process_that_dies_is_replaced_and_one_that_keeps_dying_ends_the_work(tmp_path):
    items = [Square(number, tmp_path) for number in range(4)]
    run_items(Processes(2), partial(square, kills_at=(1, 3)), items, tmp_path)
    assert [item.attempts for item in items] == [1, 2, 1, 2]
    with pytest.raises(WorkerError, match=r"square of 7: its worker died \(SIGKILL\), like 2 before"):
        run_items(Processes(1), partial(square, kills_at=(7,), times=99), [Square(7, tmp_path)], tmp_path)
    assert Square(7, tmp_path).attempts == workers.MAX_DEATHS


def hold(item):
    """Say so, and compute for ever."""
    with (item.folder / "held").open("wb", buffering=0) as pipe:
        pipe.write(b"x")
        signal.pause()


DRIVER = """
from pathlib import Path
from edgemoe.executors import Processes, Slurm, run_items
from test_executors import Square, hold
run_items(Processes(1), hold, [Square(5, Path.cwd())], Path.cwd())
"""
ON_SLURM_DRIVER = DRIVER.replace("Processes(1)", 'Slurm(1, 1, cluster="local")')


def test_processes_end_with_a_command_that_is_killed_which_then_goes_on(tmp_path):
    """One that computed on would take its memory beside that of the command that goes on."""
    os.mkfifo(tmp_path / "held")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, env={**os.environ, "PYTHONPATH": TESTS}
    )
    with (tmp_path / "held").open("rb", buffering=0) as pipe:
        assert pipe.read(1) == b"x"
        driver.kill()
        driver.wait()
        ready, _, _ = select.select([pipe], [], [], LONG_S)
        assert ready, "the worker lives on"
        assert pipe.read(1) == b""
    item = Square(5, tmp_path)
    run_items(Processes(2), square, [item], tmp_path)
    assert item.output.read_text() == "25"


@dataclass
class Orphaning:
    """An executor whose command is killed by a job in the midst of an item, which is then held for ever."""

    executor: Executor
    folder: Path  # of its marks
    num_works: int  # pieces of work that go well before
    num_begun: int = 0

    def check(self):
        self.executor.check()

    def map(self, work, items, folder, finished):
        self.num_begun += 1
        if self.num_begun > self.num_works:
            work = partial(orphaned, work, self.folder, os.getpid())
        self.executor.map(work, items, folder, finished)


def orphaned(work, folder, command, item):
    try:
        (folder / "killed").touch(exist_ok=False)
    except FileExistsError:
        work(item)
    else:
        with (folder / "held").open("wb", buffering=0) as pipe:
            os.kill(command, signal.SIGKILL)
            pipe.write(b"x")
            signal.pause()


KILLED = """
import sys
from pathlib import Path
from edgemoe.executors import Slurm
from test_executors import Orphaning, profiled
checkpoint, folder, marks, num_works = sys.argv[1:]
executor = Orphaning(Slurm(2, 1, cluster="local"), Path(marks), int(num_works))
profiled(Path(checkpoint), Path(folder), executor)
"""


def test_a_killed_command_goes_on_with_the_same_bits_and_none_of_its_jobs_lives(
    here, tiny_checkpoint, tmp_path, monkeypatch
):
    """Killed as it converts, and again as it measures."""
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS}:{Path(TESTS).parent}")
    profile = tmp_path / "profile"
    with ExitStack() as stack:
        pipes = []
        for num_works in (0, 2):
            marks = tmp_path / f"killed-{num_works}"
            marks.mkdir()
            os.mkfifo(marks / "held")
            command = subprocess.Popen(
                [sys.executable, "-c", KILLED, *map(str, (tiny_checkpoint, profile, marks, num_works))]
            )
            pipes.append(stack.enter_context((marks / "held").open("rb", buffering=0)))
            assert command.wait() == -signal.SIGKILL
            assert pipes[-1].read(1) == b"x"
        assert agrees_with(here, tiny_checkpoint, profile, Slurm(2, 1, cluster="local"))
        for pipe in pipes:
            os.set_blocking(pipe.fileno(), False)
            assert pipe.read(1) == b"", "a job lives on"


@pytest.mark.parametrize("executor", [Here(), Processes(2)], ids=["here", "processes"])
def test_whatever_goes_on_ends_the_jobs_of_a_command_that_was_killed(executor, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", TESTS)
    os.mkfifo(tmp_path / "held")
    driver = subprocess.Popen([sys.executable, "-c", ON_SLURM_DRIVER], cwd=tmp_path)
    with (tmp_path / "held").open("rb", buffering=0) as pipe:
        assert pipe.read(1) == b"x"
        driver.kill()
        driver.wait()
        item = Square(5, tmp_path)
        run_items(executor, square, [item], tmp_path)
        os.set_blocking(pipe.fileno(), False)
        assert pipe.read(1) == b"", "the job lives on"
    assert item.output.read_text() == "25"


def test_a_job_that_dies_is_begun_again_with_what_is_left(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", TESTS)
    items = [Square(number, tmp_path) for number in range(3)]
    run_items(Slurm(1, 1, cluster="local"), partial(square, kills_at=(1,)), items, tmp_path)
    assert [item.attempts for item in items] == [1, 2, 1]


def test_what_a_worker_refuses_is_said_in_one_line(tmp_path):
    item = Square(1, tmp_path)
    refusal = RequestError("1 MiB cannot work")
    with pytest.raises(WorkerError, match=r"^square of 1, on .*: 1 MiB cannot work$"):
        run_items(Processes(2), partial(square, error=refusal), [item], tmp_path)
    with pytest.raises(WorkerError, match=r"^square of 1, on .*: KeyError: 'who'$"):
        run_items(Processes(2), partial(square, error=KeyError("who")), [item], tmp_path)
    with pytest.raises(RequestError):  # here errors are what they are
        run_items(Here(), partial(square, error=refusal), [item], tmp_path)


def test_a_node_that_does_not_share_the_folder_or_computes_otherwise_is_refused(tmp_path, monkeypatch):
    item = Square(1, tmp_path)
    with workers.calling(square, tmp_path, None) as call:
        assert call(item) is None
        monkeypatch.setattr(workers, "_versions", lambda: "edgemoe 9, numpy 9, plain kernels")
        assert "numbers would differ in their last bits" in call(item).reason
        monkeypatch.undo()
        (tmp_path / "workers").write_text("of another disk")
        assert "all nodes must share its storage" in call(item).reason
    assert "all nodes must share its storage" in call(item).reason
    with pytest.raises(WorkerError, match="all workers must share this folder"):
        run_items(Here(), lambda item: None, [Square(2, tmp_path)], tmp_path)


def test_parts_make_the_store_that_convert_makes(tiny_checkpoint, tmp_path, small_parts):
    plan = BitPlan.uniform("q3", "q8")
    plain = convert(tiny_checkpoint, tmp_path / "plain", plan)
    told = []
    (report,) = convert_in_parts(
        tiny_checkpoint, {tmp_path / "parts": plan}, Here(), progress=lambda *done: told.append(done)
    )
    assert len(told) == 4
    assert told[-1][0] <= told[-1][1]
    assert report.rounding == plain.rounding
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "plain"]
    for path in (tmp_path / "plain").iterdir():
        assert (tmp_path / "parts" / path.name).read_bytes() == path.read_bytes()


def test_an_executor_that_cannot_work_is_refused_before_the_work(tiny_checkpoint, tmp_path):
    class Missing(Here):
        def check(self):
            raise RequestError("no cluster")

    def find_windows(store):
        raise AssertionError("the text was read")

    plan = BitPlan.uniform("q3", "q8")
    with pytest.raises(RequestError, match="no cluster"):
        Profile.make(tiny_checkpoint, tmp_path / "profile", find_windows, quiet, OPTIONS, Missing())
    with pytest.raises(RequestError, match="no cluster"):
        convert_in_parts(tiny_checkpoint, {tmp_path / "parts": plan}, Missing())
    assert not list(tmp_path.iterdir())
    Processes(2).check()
    pytest.importorskip("submitit")
    Slurm(cluster="local").check()
    with pytest.raises(RequestError, match="--executor slurm"):
        Slurm(parameters={"no_such_setting": 1}, cluster="local").check()


def files_of(store):
    return {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("edgemoe.convert.parts.MAX_PART_BYTES", 64 * 1024)


class Elsewhere:
    """Takes items as processes and machines do, at none of their cost."""

    check, map = Here.check, Here.map


def test_a_shared_conversion_that_stops_goes_on_and_makes_the_same_store(
    tiny_checkpoint, tmp_path, small_parts, monkeypatch
):
    plain, shared = tmp_path / "plain", tmp_path / "shared"
    convert_model(tiny_checkpoint, plain, ConvertOptions(bits=3))
    asked = []
    monkeypatch.setattr(
        "edgemoe.workflows.convert.find_executor", lambda given: asked.append(given) or Elsewhere()
    )
    options = ConvertOptions(bits=3, executor=ExecutorOptions("local:2"))

    @contextmanager
    def stops_after_two(description, unit):
        def advance(done, total, told=[]):  # noqa: B006 - counts
            told.append(done)
            if len(told) == 2:
                raise KeyboardInterrupt

        yield advance

    with pytest.raises(KeyboardInterrupt):
        convert_model(tiny_checkpoint, shared, options, steps=stops_after_two)
    assert not shared.exists()
    report = convert_model(tiny_checkpoint, shared, options)
    assert report.num_resumed_bytes > 0
    assert asked[0].memory_bytes > 100 << 20  # what packing takes, as nobody said it
    assert files_of(shared) == files_of(plain)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "shared"]


def test_parts_of_something_else_are_not_removed(tiny_checkpoint, tmp_path):
    (tmp_path / "out.parts").mkdir()
    (tmp_path / "out.parts" / "letter.txt").write_text("dear")
    with pytest.raises(ConversionError, match="was not made by a conversion"):
        convert_in_parts(tiny_checkpoint, {tmp_path / "out": BitPlan.uniform("q3", "q8")}, Here())


def test_executors_are_chosen_by_name_and_strange_names_refused(monkeypatch):
    assert isinstance(find_executor(ExecutorOptions()), Here)
    assert isinstance(find_executor(ExecutorOptions("local:3", memory_bytes=1 << 30)), Processes)
    assert isinstance(find_executor(ExecutorOptions("slurm:short,slurm_account=us", memory_bytes=1)), Slurm)
    for options, what in (
        (ExecutorOptions("dask"), "no executor 'dask'; choose one of local"),
        (ExecutorOptions("local:many"), "give a number of processes"),
        (ExecutorOptions("local:2"), "say with --memory what each worker may take"),
        (ExecutorOptions("slurm"), "say with --memory what each worker may take"),
        (ExecutorOptions("local:2", num_workers=3), "leave out --workers"),
        (ExecutorOptions("local", num_cores=3), "--worker-cores is for ray and slurm"),
    ):
        with pytest.raises(RequestError, match=what):
            find_executor(options)
    if importlib.util.find_spec("ray"):
        monkeypatch.setattr("ray.is_initialized", lambda: False)
        with pytest.raises(
            WorkerError, match=r"no Ray cluster answers at 127\.0\.0\.1:1: Connection refused"
        ):
            find_executor(replace(ON_RAY, name="ray:127.0.0.1:1")).map(square, [], Path("."), print)
    for package, name in (("ray", "ray"), ("submitit", "slurm")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(RequestError, match=rf"pip install 'edgemoe\[{name}\]'"):
            find_executor(ExecutorOptions(name, memory_bytes=1)).map(square, [], Path("."), print)
