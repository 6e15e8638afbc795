"""A sweep of online rows: settings merged, seeds, failed seeds, pooled cells, curves, and a kill in the middle of a round."""

import json
import shutil
import signal
import statistics
from pathlib import Path

import numpy as np
import pytest

from chexalign import stats
from chexalign.errors import RecipeError
from chexalign.evaluation.answers import SEED, label_set
from chexalign.jsonl import read_records
from chexalign.recipe.files import load_recipe
from chexalign.records import Completion, Study
from chexalign.sweep.curves import curves_of, zero_rewards
from chexalign.sweep.grid import grid_entries
from chexalign.sweep.sweep import sweep
from tests.driver import OVERRIDES, back_to_pairs, start

ROUNDS = 4
SMALL = [
    "evaluate.judges=[chexpert_rule_f1,rouge_l]", "evaluate.headline=[rouge_l]", "evaluate.shuffled_images=false",
    "sweep.samples=1", "sweep.seeds=[0,1]", "sweep.evaluate=all", "train.lr=3e-3",
    f"train.rollout={{n: 3, max_new_tokens: 12, studies: 8, rounds: {ROUNDS}}}",
    "train.watch={judge: rouge_1, every: 1, limit: 4, keep: last}",
]  # fmt: skip
GRID = (
    "sweep.grid=[{name: GRPO, algorithm: grpo, kl: 0.02, sft: 0.1, reward: rouge_l},"
    " {algorithm: valor, reward: rouge_l, lambda_vis: 0, rollout: {inner_steps: 2, rounds: 2}},"
    " {name: SFT, algorithm: sft, lr: 1.0e-4}]"
)
LABELS = ["GRPO", "valor-rewardrouge_l-lambda_vis0-rolloutinner_steps_2_rounds_2", "SFT"]


def recipe(folder: Path, *more: str):
    return load_recipe("tiny", [*OVERRIDES, *SMALL, f"run_dir={folder}", GRID, *more])


# ---- rows and seeds


def entries(*more: str, of: str = "valor_phantom"):
    return grid_entries(load_recipe(of, list(more)))


def test_a_row_of_the_recipes_own_algorithm_changes_what_it_names_and_nothing_else():
    given = load_recipe("valor_phantom").train
    (row,) = entries("sweep.grid=[{algorithm: valor, lambda_vis: 0.25, rollout: {studies: 400}, lr: 2e-5}]")
    assert row.train.algorithm == given.algorithm.model_copy(update={"lambda_vis": 0.25})
    assert row.train.rollout == given.rollout.model_copy(update={"studies": 400})
    assert (row.train.reward, row.train.watch, row.train.lr) == (given.reward, given.watch, 2e-5)


def test_another_online_algorithm_starts_from_its_defaults_and_an_offline_one_drops_the_reward():
    grpo, dpo = entries("sweep.grid=[{algorithm: grpo, reward: bleu4}, {algorithm: dpo, beta: 0.2}]")
    assert grpo.train.algorithm == type(grpo.train.algorithm)() and grpo.train.reward == "bleu4"
    assert dpo.train.reward is None and dpo.train.lr == load_recipe("valor_phantom").train.lr


def test_names_say_what_multiplies_out_and_name_the_folder():
    found = entries("sweep.grid=[{name: 'VALOR (ours)', algorithm: valor, lambda_vis: [0, 0.5], kl: 0.01}]")
    assert [e.name for e in found] == ["VALOR (ours), lambda_vis 0", "VALOR (ours), lambda_vis 0.5"]
    assert [e.label for e in found] == ["VALOR_ours_lambda_vis_0", "VALOR_ours_lambda_vis_0.5"]


def test_every_row_is_trained_once_per_seed_and_a_long_label_stays_a_folders_name():
    reward = " + ".join(["0.1*rouge_l", *["0.1*bleu4"] * 30])
    (row,) = entries("sweep.seeds=[3, 4]", f"sweep.grid=[{{algorithm: grpo, reward: '{reward}'}}]")
    assert [a.train.seed for a in row.arms] == [3, 4] and row.train.seed is None
    assert all(a.label.startswith(row.label) and len(a.label) < 100 for a in row.arms)
    alone = entries("sweep.grid=[{algorithm: grpo, reward: bleu4, seed: [1, 2]}]")
    assert [[a.label for a in e.arms] for e in alone] == [["grpo-rewardbleu4-seed1"], ["grpo-rewardbleu4-seed2"]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["sweep.grid=[{algorithm: grpo, reward: null}]"], "grpo needs a reward"),
        (["sweep.grid=[{algorithm: dpo, reward: bleu4}]"], "dpo learns from pairs: remove reward"),
        (["sweep.grid=[{algorithm: grpo, reward: finding_f1}]"], "is in the reward (finding_f1)"),
        (["sweep.grid=[{algorithm: grpo, rollout: {studis: 4}}]"], "did you mean"),
        (["sweep.grid=[{algorithm: valor, name: 3}]"], "name 3 is not text"),
        (["sweep.seeds=[0, 0]"], "a seed is given twice"),
        (["sweep.seeds=[0]", "sweep.grid=[{algorithm: valor, seed: 1}]"], "exclude each other"),
        (["sweep.grid=[{algorithm: grpo, reward: bleu5}]"], "bleu5"),
    ],
)
def test_a_wrong_row_gets_one_clear_line_before_any_work(more, message, tmp_path):
    with pytest.raises(RecipeError) as error:
        sweep(load_recipe("valor_phantom", [*more, f"run_dir={tmp_path / 'run'}"]))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


# ---- curves, by hand


def write_log(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_when_the_zero_reward_rate_has_halved(tmp_path):
    """Means of five: .8 over rounds 0 to 4, .68, .56, .44, then .32 over rounds 4 to 8, the first at most half of .8."""
    rows = [{"step": i, "round": i, "zero_reward_rate": 0.8 if i < 5 else 0.2} for i in range(10)]
    log = write_log(tmp_path / "a.jsonl", rows)
    assert zero_rewards(log, 1) == {"start": pytest.approx(0.8), "end": pytest.approx(0.2), "halved": 9}
    assert zero_rewards(write_log(tmp_path / "b.jsonl", rows[:6]), 1)["halved"] is None
    assert zero_rewards(write_log(tmp_path / "c.jsonl", rows[:4]), 1) is None
    never = write_log(tmp_path / "d.jsonl", [r | {"zero_reward_rate": 0.0} for r in rows])
    assert zero_rewards(never, 1) == {"start": 0, "end": 0, "halved": None}


def test_a_curve_begins_with_the_validation_before_any_update(tmp_path):
    rows = [{"step": i, "round": i, "reward": 0.5, "val_rouge_l": 0.4 + i} for i in range(2)]
    rows[0] |= {"before_val_rouge_l": 0.1, "before_val_loss": -0.1}
    found = curves_of([write_log(tmp_path / "a.jsonl", rows)], 1)
    assert set(found) == {"reward", "val_rouge_l"}
    assert (found["val_rouge_l"]["rounds"], found["val_rouge_l"]["mean"]) == ([0, 1, 2], [0.1, 0.4, 1.4])


def test_a_curve_is_the_mean_over_seeds_with_its_range(tmp_path):
    """Two inner steps a round: the first says what was sampled, the last is validated after the round's updates."""
    logs = []
    for seed, gain in enumerate((0.0, 0.2)):
        rows = []
        for step in range(4 if seed else 2):  # one seed stopped after its first round
            rows.append({"step": step, "round": step // 2, "reward": 0.1 * step + gain, "loss": 1.0})
            if step % 2:
                rows[-1] |= {"val_rouge_l": 0.3 + gain, "val_loss": -0.3, "val_f1/Edema": 0.5}
        logs.append(write_log(tmp_path / f"{seed}.jsonl", rows))
    found = curves_of(logs, 2)
    assert set(found) == {"reward", "val_rouge_l", "val_f1/Edema"}
    assert found["reward"]["rounds"] == [0, 1] and found["reward"]["n"] == [2, 1]
    assert found["reward"]["mean"] == pytest.approx([0.1, 0.4]) and found["reward"]["high"] == pytest.approx([0.2, 0.4])
    assert found["val_rouge_l"]["rounds"] == [1, 2] and found["val_rouge_l"]["low"] == pytest.approx([0.3, 0.5])


# ---- a whole sweep


@pytest.fixture(scope="module")
def swept(tiny_run, tmp_path_factory) -> Path:
    """A sweep grown on a run that has come as far as its pairs."""
    folder = back_to_pairs(tiny_run, tmp_path_factory.mktemp("online") / "run")
    sweep(recipe(folder))
    return folder


@pytest.fixture(scope="module")
def found(swept) -> dict:
    return json.loads((swept / "sweep.json").read_text())


def lines(path: Path) -> list[dict]:
    return [json.loads(x) for x in path.read_text().splitlines()]


def test_every_row_has_an_arm_per_seed_and_all_meet_the_test_split(swept, found):
    assert [e["label"] for e in found["entries"]] == LABELS and found["seeds"] == [0, 1]
    assert [e["name"] for e in found["entries"]] == ["GRPO", None, "SFT"]
    for e in found["entries"]:
        assert [(r["label"], r["seed"]) for r in e["runs"]] == [(f"{e['label']}-seed{s}", s) for s in (0, 1)]
        assert e["test"]["temperature_1"]["n_studies"] == 8 and "greedy" in e["test"]
    assert sum(e["picked"] == "winner" for e in found["entries"]) == 1 and found["n_pairs"]
    online, offline = found["entries"][0]["train"], found["entries"][2]["train"]
    assert online["seconds_per_round"] > 0 and online["seconds_per_epoch"] is None and offline["seconds_per_epoch"] > 0


def test_seeds_differ_in_training_alone(swept):
    folders = [swept / "sweep" / f"GRPO-seed{s}" for s in (0, 1)]
    assert len({(f / "policy/model.safetensors").read_bytes() for f in folders}) == 2
    saved = [json.loads((f / "manifest.json").read_text())["recipe"] for f in folders]
    assert [r["train"].pop("seed") for r in saved] == [0, 1] and [r["seed"] for r in saved] == [0, 0]
    assert saved[0]["train"] == saved[1]["train"]
    drawn = [read_records(f / "evaluation/aligned.temperature_1.jsonl", Completion) for f in folders]
    assert [c.seed for c in drawn[0]] == [c.seed for c in drawn[1]]


def test_the_baseline_is_evaluated_once_and_shared(swept, found):
    own = [p / "evaluation/baseline.greedy.jsonl" for p in (swept / "sweep").iterdir() if p.name != "baseline"]
    assert len(own) == 6 and len({p.read_bytes() for p in own}) == 1
    cells = [e["test"]["greedy"]["baseline"] for e in found["entries"]]
    assert cells[0] == cells[1] == cells[2]


def test_cells_average_the_seeds_by_study_and_then_resample_studies(swept, found):
    entry, level = found["entries"][0], found["level"]
    scores = []
    for seed in (0, 1):
        rows = lines(swept / f"sweep/GRPO-seed{seed}/evaluation/per_study.jsonl")
        scores.append([r["scores"]["rouge_l"] for r in rows if (r["policy"], r["decoding"]) == ("aligned", "greedy")])
        before = [r["scores"]["rouge_l"] for r in rows if (r["policy"], r["decoding"]) == ("baseline", "greedy")]
    mean = [(a + b) / 2 for a, b in zip(*scores, strict=True)]
    block = entry["test"]["greedy"]
    assert block["aligned"]["rouge_l"]["seeds"] == pytest.approx([statistics.fmean(x) for x in scores])
    by_hand = stats.paired_difference(before, mean, found["n_bootstrap"], SEED, level)
    assert {k: block["difference"]["rouge_l"][k] for k in by_hand} == pytest.approx(by_hand)
    validated = [json.loads((swept / f"sweep/GRPO-seed{s}/validation.json").read_text())["scores"] for s in (0, 1)]
    by_seed = [statistics.fmean(v["rouge_l"]) for v in validated]
    assert entry["validation"]["rouge_l"]["seeds"] == pytest.approx(by_seed)
    assert entry["validation"]["rouge_l"]["mean"] == pytest.approx(statistics.fmean(by_seed))


def test_macro_precision_recall_and_f1_are_those_of_sklearn(swept, found):
    from sklearn.metrics import precision_recall_fscore_support

    told = {s.study_id: label_set(s.findings) for s in read_records(swept / "studies.jsonl", Study)}
    by_seed = []
    for seed in (0, 1):
        rows = read_records(swept / f"sweep/SFT-seed{seed}/evaluation/aligned.greedy.jsonl", Completion)
        names = sorted(set().union(*(told[r.study_id] for r in rows)) - {"No Finding"})
        truth, said = (
            np.array([[name in x for name in names] for x in labels])
            for labels in ([told[r.study_id] for r in rows], [label_set(r.text) for r in rows])
        )
        by_seed.append(precision_recall_fscore_support(truth, said, average="macro", zero_division=0)[:3])
    cells = found["entries"][2]["test"]["greedy"]["aligned"]
    for i, part in enumerate(("precision", "recall", "f1")):
        cell = cells[f"chexpert_rule_macro_{part}"]
        assert cell["seeds"] == pytest.approx([s[i] for s in by_seed])
        assert cell["mean"] == pytest.approx(statistics.fmean(cell["seeds"]))


def test_curves_are_those_of_the_logs(swept, found):
    grpo, valor, sft = found["entries"]
    assert sft["curves"] == {} and grpo["curves"]["reward"]["rounds"] == [0, 1, 2, 3]
    logs = [swept / f"sweep/{valor['label']}-seed{s}/train_log.jsonl" for s in (0, 1)]
    rows = [lines(log) for log in logs]
    assert [len(r) for r in rows] == [4, 4]  # two rounds of two inner steps
    curve = valor["curves"]["val_rouge_1"]
    last = [r[-1]["val_rouge_1"] for r in rows]
    assert curve["rounds"][-1] == 2 and curve["mean"][-1] == pytest.approx(statistics.fmean(last))
    assert (curve["low"][-1], curve["high"][-1]) == (min(last), max(last))
    told = [label_set(s.findings) for s in read_records(swept / "studies.jsonl", Study) if s.split == "val"]
    limit = recipe(swept).train.watch.limit
    assert found["finding_support"] == {
        n: c for n in set().union(*told) - {"No Finding"} if (c := sum(n in t for t in told[:limit]))
    }


def test_one_failed_seed_is_told_and_its_row_is_not_picked(swept, found, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(swept, folder)
    label = found["winner"]
    shutil.rmtree(folder / f"sweep/{label}-seed1")
    (folder / f"sweep/{label}-seed1").mkdir()
    (folder / f"sweep/{label}-seed1/failed.json").write_text('{"reason": "the gradient is not finite"}')
    sweep(recipe(folder))
    again = json.loads((folder / "sweep.json").read_text())
    entry = next(e for e in again["entries"] if e["label"] == label)
    assert again["winner"] != label and entry["picked"] is None and entry["reason"] is None
    assert [r["reason"] for r in entry["runs"]] == [None, "the gradient is not finite"]
    assert len(entry["validation"]["rouge_l"]["seeds"]) == 1 and entry["test"]["greedy"]["n_studies"] == 8


def test_seeds_may_be_added_later(swept, found):
    before = {p: p.stat().st_mtime_ns for p in swept.glob("sweep/*-seed0/policy/*")}
    sweep(recipe(swept, "sweep.seeds=[0]", "sweep.evaluate=picked"))
    one = json.loads((swept / "sweep.json").read_text())
    assert [len(e["runs"]) for e in one["entries"]] == [1, 1, 1] and sum(bool(e["test"]) for e in one["entries"]) == 3
    sweep(recipe(swept))
    assert json.loads((swept / "sweep.json").read_text()) == found
    assert before == {p: p.stat().st_mtime_ns for p in swept.glob("sweep/*-seed0/policy/*")}


def test_a_killed_online_sweep_makes_no_pairs_and_resumes_to_the_same_weights(swept, tmp_path):
    """Online rows alone, on the same baseline; killed in a round of the second seed."""
    folder = tmp_path / "run"
    shutil.copytree(swept, folder, ignore=shutil.ignore_patterns("sweep", "*.jsonl"))
    shutil.copy(swept / "studies.jsonl", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["stages"] = {k: v for k, v in manifest["stages"].items() if k in ("studies", "warmup")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    more = [*SMALL, "sweep.grid=[{name: GRPO, algorithm: grpo, kl: 0.02, sft: 0.1, reward: rouge_l}]"]
    assert start(folder, "GRPO-seed1/train_log", 3, "sweep", more) == -signal.SIGKILL
    sweep(load_recipe("tiny", [*OVERRIDES, *more, f"run_dir={folder}"]))
    done = json.loads((folder / "sweep.json").read_text())
    assert done["n_pairs"] is None and done["pair_judge"] is None and done["select"] == "lc_rouge_1"
    assert not (folder / "pairs.jsonl").exists() and not (folder / "completions.jsonl").exists()
    for seed in (0, 1):
        one, two = ((f / f"sweep/GRPO-seed{seed}/policy/model.safetensors").read_bytes() for f in (swept, folder))
        assert one == two
