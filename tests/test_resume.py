"""kill -9 in the middle of warm-up, sample, score and train, then the same command: outputs equal an uninterrupted run's."""

import json
import signal
from pathlib import Path

import pytest

from tests.driver import start


@pytest.fixture(scope="module")
def folders(tiny_run, tmp_path_factory) -> tuple[Path, Path]:
    killed = tmp_path_factory.mktemp("killed") / "run"
    for where, at in (
        ("report_log", 5),
        ("completions.jsonl", 2),
        ("completions.jsonl", 2),
        ("verdicts.jsonl", 3),
        ("train_log", 5),
    ):
        assert start(killed, where, at) == -signal.SIGKILL, where
    assert start(killed) == 0
    return tiny_run, killed


def rows(path: Path) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["studies.jsonl", "completions.jsonl", "pairs.jsonl", "pairs_summary.json"])
def test_files_are_the_same_bytes(folders, name):
    assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["verdicts.jsonl", "train_log.jsonl", "warmup/report_log.jsonl", "evaluation/aligned.temperature_1.jsonl"]
)
def test_rows_are_the_same_but_for_seconds(folders, name):
    one, two = (rows(f / name) for f in folders)
    assert one == two and one


@pytest.mark.parametrize("name", ["baseline", "policy"])
def test_weights_are_the_same_bytes(folders, name):
    one, two = ((f / name / "model.safetensors").read_bytes() for f in folders)
    assert one == two


def test_training_changed_the_policy(folders):
    one, two = ((folders[0] / n / "model.safetensors").read_bytes() for n in ("baseline", "policy"))
    assert one != two


def test_no_row_is_lost_or_doubled(folders):
    keys = [(r["study_id"], r["sample_index"]) for r in rows(folders[1] / "completions.jsonl")]
    assert len(keys) == len(set(keys)) == 3 * 40


def test_nothing_temporary_is_left(folders):
    left = [str(p) for p in folders[1].rglob("*") if p.suffix in (".part", ".tmp", ".pt", ".new") or "after_" in p.name]
    assert not left


def test_the_manifest_tells_the_whole_story(folders):
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    assert list(manifest["stages"]) == ["studies", "warmup", "sample", "score", "pairs", "train", "evaluate"]
    for stage in manifest["stages"].values():
        assert stage["finished"] and stage["rows_in"] > 0 and stage["rows_out"] > 0
    assert manifest["recipe"]["sample"]["n"] == 3 and manifest["judges"]["rouge_l"]
    assert {"python", "torch", "transformers"} <= set(manifest["versions"])
