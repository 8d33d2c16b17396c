"""Budgets of memory: what a process may take by default, and whether what somebody asks for can be had."""

from __future__ import annotations

from edgemoe.engine.machine import available_memory_bytes, resident_bytes, total_memory_bytes
from edgemoe.errors import RequestError
from edgemoe.units import MIB, format_size

# What a default budget leaves of the free memory to everything else: this share, at least these bytes.
DEFAULT_FREE_SHARE = 0.1
DEFAULT_FREE_BYTES = 128 * MIB


def default_budget() -> tuple[int, str]:
    """Bytes that this process may take without crowding others, and a line that says why."""
    available, reason = available_memory_bytes()
    margin = max(DEFAULT_FREE_BYTES, int(available * DEFAULT_FREE_SHARE))
    budget = max(0, available - margin) + resident_bytes()
    return budget, f"{format_size(budget)}: {format_size(available)} {reason}, less {format_size(margin)}"


def check_budget(budget_bytes: int) -> str | None:
    """What a user should know of a budget that is more than what is free now; None: nothing.

    Raises:
        RequestError: it is more than the machine or the cgroup has in all, which would kill the process.
    """
    total, why_total = total_memory_bytes()
    if budget_bytes > total:
        raise RequestError(
            f"a budget of {format_size(budget_bytes)} is more than the {format_size(total)} that {why_total};"
            " ask for less, or for no budget, which takes what is free"
        )
    available, why = available_memory_bytes()
    if budget_bytes > available + resident_bytes():
        return f"the budget of {format_size(budget_bytes)} is more than the {format_size(available)} {why}"
    return None
