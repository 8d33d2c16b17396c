"""``edgemoe report``: pictures of a profile and its plans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemoe.cli.given import refuse_without
from edgemoe.cli.options import JsonOption, unset
from edgemoe.cli.output import print_json


def report(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="Folder made by edgemoe profile.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Report to make; a new folder.")],
    plans: Annotated[
        list[Path] | None,
        unset("--plan", "FILE", "Plan to show; can be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    r"""Draw what a profile measured and what plans made of it.

    The report shows how much each expert matters, which width each plan gives it, and loss against size. It
    is report.md, report.html and their pictures; it needs matplotlib.

    \b
    edgemoe report olmoe.profile --plan olmoe-plan.json -o olmoe-report
    """
    refuse_without("matplotlib", "a report", "plot")
    from edgemoe.report import write_report
    from edgemoe.workflows.outputs import refuse_output

    refuse_output(out)

    write_report(profile, plans or [], out)
    if as_json:
        print_json({"report": str(out), "files": sorted(path.name for path in out.iterdir())})
    else:
        print(f"wrote {out / 'report.md'} and {out / 'report.html'}")
