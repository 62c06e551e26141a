"""Which requests take part in the next step; torch-free."""

from treespec.scheduler.scheduler import PlannedRow, Scheduler

__all__ = ["PlannedRow", "Scheduler"]
