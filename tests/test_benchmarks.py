"""The commands behind the figures in docs still run, and the labeller's bar holds."""

import importlib.util
import json
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


def test_the_transfers_splits_share_no_patient_and_train_on_one_style(tmp_path):
    module = load(BENCHMARKS / "transfer_openi.py")
    studies = module.by_style()
    assert {style: len(part) for style, part in studies.items()} == {"plain": 2640, "numbered": 779}
    tested = {}
    for style in module.STYLES:
        module.write_source(style, studies, tmp_path / "source.jsonl")
        rows = [json.loads(line) for line in (tmp_path / "source.jsonl").read_text().splitlines()]
        by_split = {split: [r for r in rows if r["split"] == split] for split in ("train", "val", "test")}
        learnt, tested[style] = by_split["train"] + by_split["val"], by_split["test"]
        assert len(learnt) == 490 and len(tested[style]) == 300
        assert all(r["impression"].lstrip().startswith("1") == (style == "numbered") for r in learnt)
        assert not {r["patient_id"] for r in learnt} & {r["patient_id"] for r in tested[style]}
    assert tested["plain"] == tested["numbered"]
