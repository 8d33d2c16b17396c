"""Options that travel together: one object to a command, single options on the command line.

A group is a frozen dataclass whose fields are annotated as options. ``with_groups`` spreads the fields of
every group that a command takes over its command line, and hands the command the groups:

    @dataclass(frozen=True)
    class Reading:
        depth: Annotated[int, typer.Option("--depth")] = 4

    @with_groups
    def command(path: Path, reading: Reading) -> None: ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

Command = Callable[..., None]


def with_groups(command: Command) -> Command:
    """The command as the command-line library is to see it: no groups, all options."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        if name in groups:
            parameters += _parameters_of(groups[name])
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        made = {}
        for name, group in groups.items():
            made[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values, **made)

    spread.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def _parameters_of(group: type[Any]) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
