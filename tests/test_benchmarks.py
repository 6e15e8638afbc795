"""The commands behind the figures in docs still run, and the labeller's bar holds."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda p: p.stem)
def test_every_benchmark_imports_and_names_its_command(path):
    module = load(path)
    assert callable(module.main) and f"benchmarks/{path.name}" in module.__doc__


def test_the_labeller_meets_its_bar_on_openi():
    measured = load(BENCHMARKS / "labeller_openi.py").measure()
    held_out = measured["mesh"]["held_out"]
    assert held_out["n"] > 1800 and held_out["micro_f1"]["mean"] >= 0.88
    assert measured["ms_per_report"] < 1.0
