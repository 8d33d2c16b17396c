"""Energy: the machine's own counters where it has some that can be read, else an estimate that says so.

Counters are of the whole machine, what other programs use included: RAPL by powercap (processor packages and
memory), power sensors of the INA kind by hwmon (Jetson), and a battery that is being emptied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from edgemoe.models import ModelSpec
from edgemoe.store import Manifest

_SYS = Path("/sys")
_INA = ("ina219", "ina226", "ina231", "ina238", "ina3221")
# A sensor tells power, which is summed up between readings; a board's input has all of it.
_INPUT_LABELS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")
_UWH_JOULES = 3600e-6
# Readings closer than this are one: every token asks, and a counter's files take longer than that.
_READING_S = 0.1


@dataclass(frozen=True)
class EnergyModel:
    """What an estimate is made of: watts of a core that computes, joules of a byte of storage and of memory.

    Memory: 1.3 nJ for 64 bits of DRAM, the lower end of Horowitz (ISSCC 2014, figure 1.1.9). Storage: an
    active power of 5 W at 2.5 GB/s, as data sheets of NVMe drives have it. Core: 4 W, a quarter of a laptop's
    15 W package of four cores.
    """

    core_w: float = 4.0
    storage_j_per_byte: float = 2e-9
    memory_j_per_byte: float = 1.3e-9 / 8

    def joules(self, busy_s: float, read_bytes: float, memory_bytes: float) -> float:
        """Energy of so many seconds of cores, bytes from storage and bytes from memory."""
        return (
            busy_s * self.core_w
            + read_bytes * self.storage_j_per_byte
            + memory_bytes * self.memory_j_per_byte
        )


LAPTOP = EnergyModel()


class Counter(Protocol):
    """Joules since it was made."""

    def read(self) -> float:
        """The joules.

        Raises:
            OSError, ValueError: the counter cannot be read any more.
        """
        ...


class _Rapl:
    """One zone of powercap, which begins anew at its range."""

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self._range = _number(zone / "max_energy_range_uj")
        self._last, self._total = _number(self._file), 0.0

    def read(self) -> float:
        """See Counter; right if it is asked more often than the range is passed, minutes at full power."""
        now = _number(self._file)
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total * 1e-6


class _Sensor:
    """A channel of a power sensor, summed up by its readings: microwatts, or millivolts and milliamperes."""

    def __init__(self, files: tuple[Path, ...], clock: Callable[[], float]) -> None:
        self._files, self._clock, self._total = files, clock, 0.0
        self._last_w, self._last_s = self._watts(), clock()

    def _watts(self) -> float:
        product = 1.0
        for file in self._files:
            product *= _number(file)
        return product * 1e-6

    def read(self) -> float:
        """See Counter."""
        watts, now = self._watts(), self._clock()
        self._total += (watts + self._last_w) / 2 * (now - self._last_s)
        self._last_w, self._last_s = watts, now
        return self._total


class _Battery:
    """A battery that is being emptied: microwatt-hours, or microampere-hours at its voltage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first = self._charge_j()

    def _charge_j(self) -> float:
        if (self._folder / "energy_now").exists():
            return _number(self._folder / "energy_now") * _UWH_JOULES
        volts = _number(self._folder / "voltage_now") * 1e-6
        return _number(self._folder / "charge_now") * volts * _UWH_JOULES

    def read(self) -> float:
        """See Counter."""
        return max(0.0, self._first - self._charge_j())


@dataclass(frozen=True)
class Counters:
    """Counters whose joules are summed; ``source`` names them for people. Empty where there are none."""

    source: str
    counters: tuple[Counter, ...]

    def read(self) -> float | None:
        """Joules since they were found; None where there are none, or they went away."""
        try:
            return sum(counter.read() for counter in self.counters) if self.counters else None
        except (OSError, ValueError):
            return None


def find_counters(root: Path = _SYS, clock: Callable[[], float] = time.monotonic) -> Counters:
    """The best counters that can be read now: RAPL, else sensors of the board, else the battery."""
    for name, found in (
        ("RAPL by powercap", _rapl_zones(root)),
        ("power sensors by hwmon", _sensors(root, clock)),
        ("battery", _batteries(root)),
    ):
        counters = tuple(found)
        if counters:
            return Counters(name, counters)
    return Counters("", ())


def _rapl_zones(root: Path) -> Iterator[Counter]:
    """Packages, and memory beside them; other zones are parts of packages, or of the platform as a whole."""
    for zone in sorted((root / "class/powercap").glob("intel-rapl:*")):
        name = _text(zone / "name")
        if name.startswith("package") or name == "dram":
            yield from _made(partial(_Rapl, zone))


def _sensors(root: Path, clock: Callable[[], float]) -> Iterator[Counter]:
    """The channel of the board's input where one is labelled so, else all channels."""
    channels: dict[str, tuple[Path, ...]] = {}
    for chip in sorted((root / "class/hwmon").glob("hwmon*")):
        if _text(chip / "name") not in _INA:
            continue
        for volts in sorted(chip.glob("in[0-9]*_input")):
            number = volts.name[2:].removesuffix("_input")
            label = _text(chip / f"in{number}_label") or str(volts)
            power, amperes = chip / f"power{number}_input", chip / f"curr{number}_input"
            if power.exists() or amperes.exists():
                channels[label] = (power,) if power.exists() else (volts, amperes)
    wanted = [label for label in channels if label in _INPUT_LABELS] or list(channels)
    for label in wanted:
        yield from _made(partial(_Sensor, channels[label], clock))


def _batteries(root: Path) -> Iterator[Counter]:
    for folder in sorted((root / "class/power_supply").glob("*")):
        if _text(folder / "type") == "Battery" and _text(folder / "status") == "Discharging":
            yield from _made(partial(_Battery, folder))


def _made(make: Callable[[], Counter]) -> Iterator[Counter]:
    """The counter, unless its files are missing or only root may read them."""
    try:
        yield make()
    except (OSError, ValueError):
        return


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> float:
    return float(path.read_text(encoding="ascii"))


def memory_bytes_per_use(spec: ModelSpec, manifest: Manifest) -> float:
    """Bytes of memory that computing goes through for each use of an expert: the expert, and its share of the
    dense weights of a token. Several tokens of one step share these: then it is too much.
    """
    experts = sum(entry.num_bytes for entry in manifest.experts.values()) / len(manifest.experts)
    dense = sum(entry.num_bytes for entry in manifest.dense.values())
    if not spec.has_tied_head:
        dense -= manifest.dense["embed.weight"].num_bytes  # one row of it is read
    return experts + dense / sum(spec.moe(layer).router.top_k for layer in spec.decoder_moe_layers)


class EnergyMeter:
    """Energy since a model was loaded; ``is_estimate`` where no counter can be read."""

    def __init__(
        self,
        counters: Counters,
        bytes_per_use: float,
        model: EnergyModel = LAPTOP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``bytes_per_use``: see ``memory_bytes_per_use``."""
        self._counters, self._model, self._clock = counters, model, clock
        self._bytes_per_use = bytes_per_use
        self._busy_s = time.process_time()
        self._read_at, self._joules = float("-inf"), 0.0
        self.is_estimate = not counters.counters

    @property
    def source(self) -> str:
        """Which counters, or "estimate"."""
        return "estimate" if self.is_estimate else self._counters.source

    def joules(self, num_uses: int, read_bytes: float) -> float:
        """Energy so far; uses of experts and bytes read since the beginning matter to an estimate alone."""
        if not self.is_estimate:
            now = self._clock()
            if now - self._read_at < _READING_S:
                return self._joules
            counted = self._counters.read()
            if counted is not None:
                self._read_at, self._joules = now, counted
                return counted
            self.is_estimate = True
        # What is read passes through memory as well.
        memory_bytes = num_uses * self._bytes_per_use + read_bytes
        return self._model.joules(time.process_time() - self._busy_s, read_bytes, memory_bytes)
