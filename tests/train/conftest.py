"""A finished tiny run, back at the moment before training."""

import shutil

import pytest
from tests.driver import OVERRIDES

from chexalign.recipe.files import load_recipe
from chexalign.run.folder import Run


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("policy", "evaluation", "train_log.jsonl"))
    return Run(load_recipe("tiny", [f"run_dir={folder}", *OVERRIDES]), folder, {"stages": {}})
