"""The sweep: a grid multiplied out, entries as branches of one run, picks by hand, and a sweep that was killed and resumed."""

import json
import math
import shutil
import signal
import statistics
from pathlib import Path

import pytest

from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_records
from chexalign.recipe.files import load_recipe
from chexalign.recipe.preference import Dpo, Orpo
from chexalign.records import Completion, Study, Verdict
from chexalign.run.folder import Run, lock
from chexalign.sweep.grid import GRIDS, grid_entries
from chexalign.sweep.results import _cost, mark_picked
from chexalign.sweep.sweep import _length_controlled, sweep
from tests.driver import OVERRIDES, back_to_pairs, start

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
GRID = (
    "sweep.grid=[{algorithm: dpo, beta: 0.1, nll: [0.1, 1.0]}, {algorithm: ipo, lr: 1.0e+10}, {algorithm: orpo},"
    " {algorithm: kto, beta: 0.5}]"
)
LABELS = ["dpo-beta0.1-nll0.1", "dpo-beta0.1-nll1", "ipo-lr1e_10", "orpo", "kto-beta0.5"]
SELECT = "lc_rouge_l"  # the pairs of the driver's run come from rouge_l


def recipe(folder: Path, *more: str):
    return load_recipe("tiny", [*OVERRIDES, f"run_dir={folder}", GRID, "sweep.samples=2", *more])


def entries(*grid: str):
    return grid_entries(load_recipe("tiny", [f"sweep.grid=[{', '.join(grid)}]"]))


# ---- the grid


def test_lists_multiply_out_and_settings_land_where_they_belong():
    found = entries("{algorithm: [dpo, lc_dpo], beta: [0.1, 1], lr: 2e-4}", "{algorithm: orpo, epochs: 3}")
    assert [e.label for e in found] == [
        "dpo-beta0.1-lr0.0002", "dpo-beta1-lr0.0002", "lc_dpo-beta0.1-lr0.0002", "lc_dpo-beta1-lr0.0002", "orpo-epochs3",
    ]  # fmt: skip
    first, last = found[0].train, found[-1].train
    assert (first.algorithm.type, first.algorithm.beta, first.algorithm.nll, first.lr) == ("dpo", 0.1, 0.0, 2e-4)
    assert (last.algorithm, last.epochs, last.lr) == (Orpo(), 3, load_recipe("tiny").train.lr)


def test_a_list_setting_is_given_as_a_list_of_lists():
    found = entries("{algorithm: dpo, freeze: [[tower], [tower, projector]]}")
    assert [e.train.freeze for e in found] == [("tower",), ("tower", "projector")]
    assert all(Path(e.label).name == e.label and e.label.isascii() for e in found)


def test_table_7_of_the_paper():
    found = entries("table7", "{algorithm: dpo, beta: 0.5}")
    counts = {t: sum(e.train.algorithm.type == t for e in found) for t in ("dpo", "lc_dpo", "ipo", "kto", "orpo")}
    assert counts == {"dpo": 4, "lc_dpo": 6, "ipo": 3, "kto": 3, "orpo": 4}
    assert {(e.train.algorithm.beta, e.train.algorithm.alpha) for e in found if e.train.algorithm.type == "lc_dpo"} == {
        (beta, alpha) for beta in (0.01, 0.05, 0.1) for alpha in (0.001, 0.01)
    }
    assert sorted(e.train.algorithm.lam for e in found if e.train.algorithm.type == "orpo") == [0.5, 1, 4, 5]
    assert load_recipe("tiny").sweep.grid == ("table7",) and set(GRIDS) == {"table7"}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_has_a_grid_that_can_be_swept(path):
    recipe = load_recipe(str(path))
    if recipe.train.online and "grid" not in recipe.sweep.model_fields_set:  # table 7 is about pairs
        with pytest.raises(RecipeError, match=r"sweep.grid is missing; give rows like \{algorithm: grpo, reward"):
            grid_entries(recipe)
    else:
        assert grid_entries(recipe)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("[table8]", "no built-in grid 'table8'; did you mean 'table7'?"),
        ("[{beta: 0.1}]", "names no algorithm"),
        ("[{algorithm: dop}]", "sweep.grid, dop: train.algorithm"),
        ("[{algorithm: dpo, betta: 0.1}]", "unknown key 'train.algorithm.betta'"),
        ("[{algorithm: dpo, beta: [0.1, -1]}]", "train.algorithm.beta: Input should be greater than 0 (got -1)"),
        ("[{algorithm: dpo, beta: [0.1, 0.1]}]", "dpo-beta0.1 and dpo-beta0.1 are the same settings"),
        (f"[{{algorithm: dpo}}, {{algorithm: dpo, beta: {Dpo().beta}}}]", "are the same settings"),
        ("[]", "sweep.grid is empty"),
    ],
)
def test_a_wrong_grid_gets_one_clear_line_before_any_work(grid, message, tmp_path):
    with pytest.raises(RecipeError) as error:
        sweep(load_recipe("tiny", [f"sweep.grid={grid}", f"run_dir={tmp_path / 'run'}"]))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_unknown_metric_is_refused_before_any_work(tmp_path):
    with pytest.raises(RecipeError, match="rouge"):
        sweep(load_recipe("tiny", ["sweep.select=lc_rogue_l", f"run_dir={tmp_path / 'run'}"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("judge", "select"),
    [("rouge_l", "lc_rouge_l"), ("lc_green", "lc_green"), ("0.5*green + 0.5*bleu4", "lc(0.5*green + 0.5*bleu4)")],
)
def test_the_default_metric_is_the_length_controlled_judge_of_the_pairs(judge, select):
    assert _length_controlled(judge) == select


# ---- picking and timing, by hand


def row(label: str, algorithm: str, mean: float | None) -> dict:
    row = {"label": label, "algorithm": algorithm, "validation": {"m": {"mean": mean}}, "picked": None, "reason": None}
    return {**row, "runs": [{"reason": None}]}


def test_the_best_of_each_algorithm_is_picked_and_the_first_of_equals():
    rows = [
        row("a", "dpo", 0.3),
        row("b", "kto", 0.5),
        row("c", "dpo", 0.4),
        row("d", "kto", 0.5),
        row("e", "ipo", None),
    ]
    assert mark_picked(rows, "m") == ["b", "c"]
    assert [r["picked"] for r in rows] == [None, "winner", "algorithm", None, None]


def test_nothing_to_pick_says_why():
    failed = {**row("a", "dpo", None), "runs": [{"reason": "the gradient is not finite"}]}
    with pytest.raises(WorkError, match="nothing to pick from: the gradient is not finite"):
        mark_picked([row("b", "ipo", None), failed], "m")


def test_an_epoch_is_timed_by_the_median_step(tmp_path):
    times = [1.0, 3.0, 5.0, 7.5, 0.4, 2.4]  # two seconds a step, one slow, and a resume between 7.5 and .4
    (tmp_path / "train_log.jsonl").write_text("".join(json.dumps({"seconds": t}) + "\n" for t in times))
    made = load_recipe("tiny", ["train.batch_size=16"])
    run = Run(made, tmp_path, {"stages": {"train": {"rows_out": 33, "seconds": 9.9}}})
    cost = _cost(run)
    assert cost["seconds_per_epoch"] == pytest.approx(2.0 * 3) and (cost["steps"], cost["seconds"]) == (6, 9.9)


# ---- a whole sweep


@pytest.fixture(scope="module")
def swept(tiny_run, tmp_path_factory) -> Path:
    """A sweep grown on a run that has come as far as its pairs; they are used as they are."""
    folder = back_to_pairs(tiny_run, tmp_path_factory.mktemp("swept") / "run")
    sweep(recipe(folder))
    return folder


@pytest.fixture(scope="module")
def found(swept) -> dict:
    return json.loads((swept / "sweep.json").read_text())


def test_there_is_one_row_per_entry_and_the_failed_one_says_why(found):
    assert [e["label"] for e in found["entries"]] == LABELS
    failed = [e for e in found["entries"] if e["reason"]]
    assert [e["label"] for e in failed] == ["ipo-lr1e_10"] and "not finite" in failed[0]["reason"]
    assert not failed[0]["validation"] and failed[0]["picked"] is failed[0]["test"] is failed[0]["train"] is None
    assert found["select"] == SELECT and found["n_validation"] == 5 and found["samples"] == 2


def test_an_entry_is_the_ordinary_training_of_its_settings(swept, tiny_run):
    """The driver's run trains DPO with β .1 and an NLL weight of .1: the first entry must end in the same weights."""
    weights = [
        (f / "model.safetensors").read_bytes() for f in (tiny_run / "policy", swept / "sweep" / LABELS[0] / "policy")
    ]
    assert weights[0] == weights[1]
    others = [(swept / "sweep" / label / "policy/model.safetensors").read_bytes() for label in (LABELS[1], *LABELS[3:])]
    assert len({weights[0], *others}) == 4


def test_a_validation_cell_is_the_mean_over_studies_of_the_mean_over_reports(swept, found):
    entry = found["entries"][1]
    folder = swept / "sweep" / entry["label"] / "validation"
    verdicts = [v for v in read_records(folder / "verdicts.jsonl", Verdict) if v.judge == SELECT]
    studies = {v.study_id for v in verdicts}
    by_study = [statistics.fmean(v.score for v in verdicts if v.study_id == i) for i in studies]
    assert len(verdicts) == 2 * len(studies) == 10
    assert entry["validation"][SELECT]["mean"] == pytest.approx(statistics.fmean(by_study))
    words = [len(c.text.split()) for c in read_records(folder / "completions.jsonl", Completion)]
    assert entry["validation"]["words"]["mean"] == pytest.approx(statistics.fmean(words))
    assert entry["difference"][SELECT]["mean"] == pytest.approx(
        entry["validation"][SELECT]["mean"] - found["baseline"][SELECT]["mean"]
    )


def test_picks_are_the_best_on_validation_and_only_they_meet_the_test_split(swept, found):
    scored = {e["label"]: e["validation"][SELECT]["mean"] for e in found["entries"] if not e["reason"]}
    assert scored[found["winner"]] == max(scored.values())
    picked = {e["label"] for e in found["entries"] if e["picked"]}
    assert picked == {max(LABELS[:2], key=lambda i: scored[i]), *LABELS[3:]}
    assert {e["label"] for e in found["entries"] if e["test"]} == picked
    split = {s.study_id: s.split for s in read_records(swept / "studies.jsonl", Study)}
    for label in scored:
        folder = swept / "sweep" / label
        assert {split[c.study_id] for c in read_records(folder / "validation/completions.jsonl", Completion)} == {"val"}
        assert (folder / "results.json").exists() == (folder / "evaluation").exists() == (label in picked)
    drawn = read_records(swept / "sweep" / found["winner"] / "evaluation/aligned.greedy.jsonl", Completion)
    assert {split[c.study_id] for c in drawn} == {"test"}


def test_test_results_are_those_of_the_evaluate_stage(swept, found):
    for entry in (e for e in found["entries"] if e["picked"]):
        results = json.loads((swept / "sweep" / entry["label"] / "results.json").read_text())
        assert entry["test"]["temperature_1"]["difference"] == results["difference"]
        assert entry["test"]["greedy"]["aligned"] == results["subsets"]["greedy"]["aligned"]
        first = json.loads((swept / "sweep" / found["winner"] / "results.json").read_text())
        assert results["baseline"] == first["baseline"] and results["n_studies"] == 8


def test_time_is_relative_to_dpo(found):
    cost = {e["label"]: e["train"] for e in found["entries"] if e["train"]}
    dpo = statistics.median(cost[label]["seconds_per_epoch"] for label in LABELS[:2])
    for one in cost.values():
        assert one["relative"] == pytest.approx(one["seconds_per_epoch"] / dpo) and math.isfinite(one["seconds"])


def test_pairs_and_references_are_shared_not_copied(swept):
    assert (swept / "reference_logps.jsonl").stat().st_size  # of KTO's mismatched completions
    for folder in (swept / "sweep").iterdir():
        held = {p.name for p in folder.iterdir()}
        assert not held & {
            "studies.jsonl",
            "pairs.jsonl",
            "completions.jsonl",
            "reference_logps.jsonl",
            "images",
            "features",
        }


def test_a_finished_sweep_does_nothing_again(swept, found):
    files = [p for p in swept.rglob("*") if p.is_file() and p.name not in (".lock", "manifest.json", "sweep.json")]
    before = {p: p.stat().st_mtime_ns for p in files}
    sweep(recipe(swept))
    assert {p: p.stat().st_mtime_ns for p in files} == before
    assert json.loads((swept / "sweep.json").read_text()) == found


def test_changed_settings_are_refused_and_others_are_not(swept, found):
    with pytest.raises(
        RecipeError, match=r"dpo-beta0.1-nll0.1: stage 'train' ran with other settings \(train.batch_size"
    ):
        sweep(recipe(swept, "train.batch_size=4"))
    with pytest.raises(RecipeError, match="sweep.samples was 2, is now 3"):
        sweep(recipe(swept, "sweep.samples=3"))
    with pytest.raises(RecipeError, match="stage 'sample' ran with other settings"):
        sweep(recipe(swept, "sample.n=2"))
    sweep(recipe(swept, "sweep.select=rouge_l", GRID.replace("{algorithm: orpo},", "")))
    again = json.loads((swept / "sweep.json").read_text())
    assert again["select"] == "rouge_l" and [e["label"] for e in again["entries"]] == [x for x in LABELS if x != "orpo"]
    sweep(recipe(swept))
    assert json.loads((swept / "sweep.json").read_text()) == found


def test_two_sweeps_do_not_share_a_folder(swept):
    with lock(swept), pytest.raises(WorkError, match="another process is working"):
        sweep(recipe(swept))


def test_a_sweep_without_validation_studies_stops_before_sampling(tmp_path, tiny_run):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    rows = [s for s in read_records(folder / "studies.jsonl", Study) if s.split != "val"]
    (folder / "studies.jsonl").write_text("".join(s.to_json() + "\n" for s in rows))
    with pytest.raises(WorkError, match="raise studies.val_share"):
        sweep(recipe(folder))


def test_a_killed_sweep_resumes_to_the_same_numbers(swept, found, tiny_run, tmp_path):
    """On a run that was trained and evaluated before: its own policy and results stay out of the sweep."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    more = [GRID, "sweep.samples=2"]
    for where, at in (("orpo/train_log", 5), (f"{found['winner']}/evaluation/aligned.greedy.jsonl", 1)):
        assert start(folder, where, at, "sweep", more) == -signal.SIGKILL, where
    sweep(recipe(folder))
    again = json.loads((folder / "sweep.json").read_text())
    for entry in (*again["entries"], *found["entries"]):
        entry["train"] = entry["runs"][0]["train"] = None  # seconds
    assert again == found
    for label in (LABELS[0], "orpo", "kto-beta0.5"):
        one, two = ((f / "sweep" / label / "policy/model.safetensors").read_bytes() for f in (swept, folder))
        assert one == two
