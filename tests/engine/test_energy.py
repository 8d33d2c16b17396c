"""Energy from counters of made-up machines, and the estimate where there are none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import edgemoe
from edgemoe.engine.energy import LAPTOP, Counters, EnergyMeter, find_counters
from edgemoe.workflows.demo import demo_store


def write(root, tree):
    for name, value in tree.items():
        path = root / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def zone(number, name, energy, most=1000e6):
    files = {"name": name, "energy_uj": int(energy), "max_energy_range_uj": int(most)}
    return {f"powercap/intel-rapl:{number}/{file}": value for file, value in files.items()}


def test_packages_and_memory_are_summed_and_begin_anew_at_their_range(tmp_path):
    zones = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "package-1", "2": "psys"}
    for number, name in zones.items():
        write(tmp_path, zone(number, name, 990e6))
    counters = find_counters(tmp_path)
    assert counters.source == "RAPL by powercap"
    assert counters.read() == 0
    write(tmp_path, zone("0", "package-0", 5e6) | zone("0:1", "dram", 992e6) | zone("0:0", "core", 1e6))
    assert counters.read() == pytest.approx(15 + 2)
    write(tmp_path, zone("0", "package-0", 995e6) | zone("1", "package-1", 993e6) | zone("2", "psys", 0))
    assert counters.read() == pytest.approx(15 + 990 + 2 + 3)


def test_sensors_are_summed_over_time_and_the_board_s_input_has_it_all(tmp_path):
    chip = "hwmon/hwmon3/"
    channels = {"1": ("VDD_IN", 5000, 2000), "2": ("VDD_CPU", 5000, 1000)}
    for number, (label, volts, amperes) in channels.items():
        names = (f"in{number}_label", f"in{number}_input", f"curr{number}_input")
        write(tmp_path, dict(zip((chip + n for n in names), (label, volts, amperes), strict=True)))
    write(tmp_path, {chip + "name": "ina3221", "hwmon/hwmon0/name": "k10temp", "hwmon/hwmon0/in1_input": 9})
    clock = Clock()
    counters = find_counters(tmp_path, clock)
    assert counters.source == "power sensors by hwmon"
    clock.now = 2.0
    assert counters.read() == pytest.approx(20)  # 10 W
    write(tmp_path, {chip + "curr1_input": 4000})
    clock.now = 3.0
    assert counters.read() == pytest.approx(20 + 15)  # from 10 to 20 W


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"energy_now": 15_000_000}, {"energy_now": 14_990_000}),
        ({"charge_now": 3_000_000, "voltage_now": 5_000_000}, {"charge_now": 2_998_000}),
    ],
)
def test_a_battery_counts_while_it_is_emptied(tmp_path, before, after):
    battery = "power_supply/BAT0/"
    write(tmp_path, {battery + n: v for n, v in {"type": "Battery", "status": "Charging", **before}.items()})
    assert not find_counters(tmp_path).counters
    write(tmp_path, {battery + "status": "Discharging"})
    counters = find_counters(tmp_path)
    write(tmp_path, {battery + name: value for name, value in after.items()})
    assert counters.read() == pytest.approx(36)  # 10 mWh


def test_counters_are_preferred_and_an_estimate_says_that_it_is_one(tmp_path):
    write(tmp_path, zone("0", "package-0", 0))
    clock = Clock()
    meter = EnergyMeter(find_counters(tmp_path), 1e6, clock=clock)
    write(tmp_path, zone("0", "package-0", 7e6))
    assert meter.joules(0, 0) == pytest.approx(7)
    write(tmp_path, zone("0", "package-0", 9e6))
    assert meter.joules(0, 0) == pytest.approx(7)  # asked again at once
    clock.now = 1.0
    assert meter.joules(0, 0) == pytest.approx(9)
    assert meter.source == "RAPL by powercap"
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").unlink()
    clock.now = 2.0
    meter.joules(0, 0)
    assert meter.source == "estimate"


def test_the_estimate_is_its_three_parts():
    meter = EnergyMeter(Counters("", ()), bytes_per_use=1e9)
    idle = meter.joules(0, 0)
    assert 0 <= idle < 1
    used = meter.joules(4, 2e9)
    assert used - idle == pytest.approx(2e9 * LAPTOP.storage_j_per_byte + 6e9 * 1.3e-9 / 8, rel=0.02)
    assert LAPTOP.joules(2, 0, 0) == 8


def test_a_model_s_stats_have_energy():
    with demo_store() as store, edgemoe.load(store) as model:
        before = model.stats()
        model.generate("Once", max_tokens=4)
        after = model.stats()
    assert after.joules > before.joules >= 0
    assert after.energy_source
    assert {"joules", "energy_source"} <= {field.name for field in fields(after)}


def test_the_table_of_the_document_is_what_the_model_gives():
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "energy_table.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0
