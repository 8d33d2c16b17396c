"""Where offline work runs: in this process, in several processes, or on several machines.

Work is a list of items, each of which makes one file in a folder that all workers share. ``run_items`` is all
that the rest of the package calls; which machine computes an item changes no bit of its file.
"""

from edgemoe.executors.choose import LOCAL, ExecutorOptions, find_executor
from edgemoe.executors.here import Here
from edgemoe.executors.items import Executor, Item, run_items
from edgemoe.executors.mark import end_earlier_workers
from edgemoe.executors.processes import Processes
from edgemoe.executors.ray_cluster import RayCluster
from edgemoe.executors.slurm import Slurm

__all__ = [
    "LOCAL",
    "Executor",
    "ExecutorOptions",
    "Here",
    "Item",
    "Processes",
    "RayCluster",
    "Slurm",
    "end_earlier_workers",
    "find_executor",
    "run_items",
]
