"""The evidence: one page per run, and runs side by side. A leaf: it reads result files and no stage depends on it."""

from chexalign.report.compare import ComparedRuns, compare_runs
from chexalign.report.run.page import write_page

__all__ = ["ComparedRuns", "compare_runs", "write_page"]
