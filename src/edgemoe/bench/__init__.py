"""Measures how fast stores run in several modes, and how fast this machine delivers weights.

options = BenchOptions(modes=("cache", "full"), memory="6GiB", num_prompt=0)
for measured in time_stores([Path("qwen.store")], options):
print(measured)
"""

from edgemoe.bench.machine_speed import StorageSpeed, measure_memory, measure_products, measure_storage
from edgemoe.bench.modes import MODES, Measurement, Tests, held_to, mode_options, run_mode
from edgemoe.bench.stores import BenchOptions, time_stores

__all__ = [
    "MODES",
    "BenchOptions",
    "Measurement",
    "StorageSpeed",
    "Tests",
    "held_to",
    "measure_memory",
    "measure_products",
    "measure_storage",
    "mode_options",
    "run_mode",
    "time_stores",
]
