"""The run folder and what it answers."""

from chexalign.run.folder import STAGES, Run, Stage, StageResult, check_same, lock, open_run

__all__ = ["STAGES", "Run", "Stage", "StageResult", "check_same", "lock", "open_run"]
