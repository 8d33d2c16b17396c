"""Pictures of what was measured: of a profile and its plans, and of a simulation. They need matplotlib.

write_report(Path("olmoe.profile"), [Path("olmoe-plan.json")], Path("olmoe-report"))
draw_runs(list(Simulation("book.trace").run()), Path("caching.png"), "book.trace")
"""

from edgemoe.report.profile import write_report
from edgemoe.report.simulation import draw_runs

__all__ = ["draw_runs", "write_report"]
