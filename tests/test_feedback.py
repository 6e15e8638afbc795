"""A person's preferences: rows that are read, rows that are named and skipped, pairs and their weights."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from chexalign.cli.commands import app
from chexalign.errors import RecipeError
from chexalign.jsonl import read_json, read_records
from chexalign.recipe.files import build_recipe, load_recipe
from chexalign.recipe.preference import Dpo, Ipo, Kto, LcDpo, Orpo, Sft
from chexalign.records import Pair, Study
from chexalign.review.feedback import JUDGE, Preference, append, read_feedback
from chexalign.run.folder import Run
from chexalign.run.policies import open_for_training
from chexalign.stages.pairs import gap_weights, make_pairs
from chexalign.stages.train import align, training_examples
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.preference.references import with_references
from chexalign.train.preference.scoring_task import Example, ScoringTask
from tests.driver import OVERRIDES

STUDIES = {i: Study(i, f"p{i}", split, findings="x") for i, split in (("s1", "train"), ("s2", "train"), ("t1", "test"))}


def written(path, *rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


# ---- the file


def test_both_forms_are_read_and_a_later_row_replaces_an_earlier(tmp_path):
    path = written(
        tmp_path / "f.jsonl",
        {"study_id": "s1", "chosen": "A ", "rejected": "B"},
        {"study_id": "s2", "edited": "C mended", "original": "C", "time": "now", "note": [1]},
        {"study_id": "s1", "chosen": "B", "rejected": "A"},  # thought again
        {"study_id": "s1", "chosen": "A", "rejected": "B", "reviewer": "other"},  # another person may disagree
        {"study_id": "s2", "tied": True, "shown": ["C", "D"]},
        "",
    )
    found = read_feedback(path, STUDIES)
    assert found.preferences == [
        Preference("s2", "C mended", "C"), Preference("s1", "B", "A"), Preference("s1", "A", "B"),
    ]  # fmt: skip
    assert dict(found.counts) == {"rows": 5, "replaced": 1, "tied": 1}


BAD = {
    "{not json": "invalid JSON",
    json.dumps({"study_id": "s9", "chosen": "a", "rejected": "b"}): "'s9' is not in studies.jsonl; give the id",
    json.dumps({"study_id": ["s1"], "chosen": "a", "rejected": "b"}): "is not in studies.jsonl",
    json.dumps({"study_id": "t1", "chosen": "a", "rejected": "b"}): "'t1' is in the test split",
    json.dumps({"study_id": "s1"}): "neither chosen and rejected, nor edited and original, nor tied",
    json.dumps({"study_id": "s1", "chosen": "a"}): "chosen and rejected must both be texts",
    json.dumps({"study_id": "s1", "edited": "a", "original": " "}): "edited and original must both be texts",
    json.dumps({"study_id": "s1", "chosen": "a  b", "rejected": "a b"}): "are the same text; change one",
    json.dumps({"study_id": "s1", "tied": True, "shown": "ab"}): "`shown` is not a list of texts",
    "[1]": "a JSON object is needed",
}


def test_bad_rows_are_named_and_the_good_ones_survive(tmp_path, capsys):
    good = {"study_id": "s1", "chosen": "A", "rejected": "B"}
    path = written(tmp_path / "f.jsonl", *BAD, good)
    found = read_feedback(path, STUDIES)
    assert found.preferences == [Preference("s1", "A", "B")] and found.counts["skipped"] == len(BAD)
    lines = capsys.readouterr().err.splitlines()
    for number, (line, problem) in enumerate(zip(lines, BAD.values(), strict=True), start=1):
        assert line.startswith(f"{path}:{number}: ") and problem in line and line.endswith("; the row is skipped")


def test_only_the_first_bad_rows_are_printed(tmp_path, capsys):
    read_feedback(written(tmp_path / "f.jsonl", *["[]"] * 25), STUDIES)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11 and lines[-1].endswith("15 more rows are skipped")


def test_appending_after_a_torn_line_loses_nothing_but_that_line(tmp_path, capsys):
    path = tmp_path / "new/f.jsonl"
    append(path, {"study_id": "s1", "chosen": "é", "rejected": "B"})
    with open(path, "a") as handle:
        handle.write('{"study_id": "s2", "cho')
    append(path, {"study_id": "s2", "chosen": "A", "rejected": "B"})
    assert [p.chosen for p in read_feedback(path, STUDIES).preferences] == ["é", "A"]
    assert f"{path}:2: invalid JSON" in capsys.readouterr().err


# ---- the stage


@pytest.fixture
def ready(tiny_run, tmp_path) -> Run:
    """A finished tiny run, back at the moment before training."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("policy", "evaluation", "train_log.jsonl"))
    return settings(folder)


def settings(folder, *changes) -> Run:
    return Run(load_recipe("tiny", [f"run_dir={folder}", *OVERRIDES, *changes]), folder, {"stages": {}})


def test_feedback_enters_as_pairs_beside_the_judges_and_is_trained_on(ready, tmp_path):
    before = read_records(ready.path("pairs.jsonl"), Pair)
    train = [s for s in read_records(ready.path("studies.jsonl"), Study) if s.split == "train"]
    rows = [{"study_id": train[0].study_id, "chosen": "No pneumothorax.", "rejected": "Left effusion."}, "torn"]
    path = written(tmp_path / "f.jsonl", *rows)
    ready = settings(ready.dir, f"pairs.feedback={path}", "pairs.feedback_weight=3")
    told = make_pairs(ready)
    pairs = read_records(ready.path("pairs.jsonl"), Pair)
    assert pairs[:-1] == before and all(p.weight == 1 for p in before)
    assert (pairs[-1].judge, pairs[-1].weight, pairs[-1].chosen) == (JUDGE, 3.0, "No pneumothorax.")
    assert pairs[-1].prompt and pairs[-1].images and pairs[-1].chosen_score is None and not pairs[-1].chosen_tokens
    assert told.rows_out == len(pairs) and told.dropped["feedback row skipped"] == 1
    summary = read_json(ready.path("pairs_summary.json"))
    assert summary["n_pairs"] == len(before) and summary["n_feedback"] == 1
    assert summary["feedback"] == {"file": str(path), "weight": 3.0, "rows": 2, "skipped": 1, "tied": 0, "replaced": 0}
    assert len(ready.path("pairs_trl.jsonl").read_text().splitlines()) == len(pairs)
    assert align(ready).rows_out == len(pairs)


def test_feedback_alone_is_enough_and_no_file_is_an_error(ready, tmp_path):
    study = next(s for s in read_records(ready.path("studies.jsonl"), Study) if s.split == "train")
    path = written(tmp_path / "f.jsonl", {"study_id": study.study_id, "chosen": "a", "rejected": "b"})
    alone = settings(ready.dir, f"pairs.feedback={path}", "pairs.min_margin=5")
    assert make_pairs(alone).rows_out == 1 and read_json(ready.path("pairs_summary.json"))["n_pairs"] == 0
    with pytest.raises(RecipeError, match="does not exist; give a file"):
        make_pairs(settings(ready.dir, f"pairs.feedback={tmp_path}/none.jsonl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": {"weight": "score_gap", "rule": "reference_worst"}}, "weight score_gap needs rule best_worst"),
        (
            {"pairs": {"feedback": "f.jsonl"}, "train": {"algorithm": "grpo", "reward": "rouge_l"}},
            "grpo learns from rewards: remove pairs.feedback",
        ),
        ({"pairs": {"feedback_weight": 0}}, "greater than 0"),
    ],
)
def test_a_wrong_recipe_gets_one_clear_line(changes, message):
    with pytest.raises(RecipeError) as error:
        build_recipe({"name": "x", "studies": {"source": "phantom"}, "warmup": {}, **changes}, "r.yaml")
    assert message in str(error.value)


# ---- weights


def test_gap_weights_by_hand():
    pair = Pair("s", "p", (), "a", "b", 0.9, 0.4, "j")
    pairs = [pair, replace(pair, rejected_score=0.8), replace(pair, chosen_score=1.3)]
    assert gap_weights(pairs) == pytest.approx([1.0, 0.2, 1.8])


def test_gap_weights_do_not_depend_on_the_judges_scale():
    pair = Pair("s", "p", (), "a", "b", 0.9, 0.4, "j")
    pairs = [replace(pair, rejected_score=r) for r in (0.1, 0.3, 0.7)]
    scaled = [replace(p, chosen_score=10 * p.chosen_score - 3, rejected_score=10 * p.rejected_score - 3) for p in pairs]
    assert gap_weights(pairs) == pytest.approx(gap_weights(scaled))


def test_the_stage_weighs_by_the_gap_with_mean_one(ready):
    make_pairs(settings(ready.dir, "pairs.weight=score_gap"))
    pairs = read_records(ready.path("pairs.jsonl"), Pair)
    weights = [p.weight for p in pairs]
    assert sum(weights) / len(weights) == pytest.approx(1) and len(set(weights)) > 3
    widest = max(pairs, key=lambda p: p.chosen_score - p.rejected_score)
    assert widest.weight == max(weights)
    assert read_json(ready.path("pairs_summary.json"))["weight"]["by"] == "score_gap"


def test_a_weight_is_a_number_of_at_least_zero():
    row = {"study_id": "s", "prompt": "p", "images": [], "chosen": "a", "rejected": "b"}
    row |= {"chosen_score": None, "rejected_score": None, "judge": "j"}
    for wrong in (-1.0, math.nan, None, "5"):
        with pytest.raises(ValueError, match="weight|number"):
            Pair.from_dict({**row, "weight": wrong})


ALL = [Sft(), Dpo(beta=0.5, nll=0.1), LcDpo(), Ipo(), Kto(beta=0.5, nll=0.1), Orpo()]


@pytest.mark.parametrize("algorithm", ALL, ids=lambda a: a.type)
def test_a_weight_multiplies_the_loss_and_gradient_of_its_pair_alone(algorithm, policy, prompts, tmp_path):
    """Weights 2 and 0 are the same as a pair twice and a pair left out, divided by the same number of pairs."""
    policy.freeze(("tower",))
    groups = [tuple(s.tokens for s in g) for g in policy.generate(prompts, 2, 1.0, 10, seed=1)]
    items = [Example(p, g, (None, None)) for p, g in zip(prompts, groups, strict=True)][:3]
    if algorithm.type == "kto":
        items = [
            replace(e, completions=(*e.completions, *groups[4]), ref_logps=(None,) * 4) for e in items
        ]  # z is not moved by a weight: all pairs lend it the same
    if algorithm.type == "sft":
        items = [replace(e, completions=e.completions[:1], ref_logps=()) for e in items]
    elif algorithm.type != "orpo":
        items = with_references(policy, items, tmp_path / "r.jsonl", "float32", lambda x: [x])
    task = ScoringTask(policy, algorithm)

    def learn(chosen, weights):
        policy.scorer.zero_grad()
        rows = [replace(items[i], weight=w) for i, w in zip(chosen, weights, strict=True)]
        values, metrics = task.loss(task.module(*task.inputs(rows)), rows)
        (values.sum() / 3).backward()
        gradient = torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])
        return values.detach(), gradient, metrics

    plain, _, told = learn((0, 1, 2), (1, 1, 1))
    weighted, gradient, told_too = learn((0, 1, 2), (2, 0, 1))
    assert torch.allclose(weighted, plain * torch.tensor([2.0, 0.0, 1.0]), atol=1e-6)
    assert all(torch.allclose(told[n], told_too[n], atol=1e-5) for n in told)  # metrics are of the pairs as they are
    if algorithm.type != "kto":
        _, twice, _ = learn((0, 0, 2), (1, 1, 1))
        assert torch.allclose(gradient, twice, atol=1e-6)


def test_weights_reach_training_and_change_it(ready, tmp_path):
    pairs, policy = read_records(ready.path("pairs.jsonl"), Pair), open_for_training(ready)
    weighty = [replace(p, weight=0.5 + i % 3) for i, p in enumerate(pairs)]
    for name in ("dpo", "sft", "kto", "orpo"):
        task = ScoringTask(policy, settings(ready.dir, f"train.algorithm={name}").recipe.train.algorithm)
        found = training_examples(settings(ready.dir, f"train.algorithm={name}"), policy, weighty, task)
        assert [e.weight for e in found] == [p.weight for p in weighty]
    losses = []
    for rows in (pairs, weighty):
        task = ScoringTask(policy, Dpo(beta=0.5))
        items = training_examples(settings(ready.dir, "train.algorithm=dpo"), policy, rows, task)
        first = LoopSettings(1, 1e-9, len(items), 8, 0, "constant", 0.0)
        folder = tmp_path / str(len(losses))
        Trainer(task, items, first, LoopFiles(folder, folder / "log.jsonl"), "test").run()
        losses.append(json.loads((folder / "log.jsonl").read_text())["loss"])
    share = sum(p.weight for p in weighty) / len(weighty)
    assert losses == pytest.approx([math.log(2), share * math.log(2)], rel=1e-4)


def test_the_command_reads_the_file(ready, tmp_path):
    study = next(s for s in read_records(ready.path("studies.jsonl"), Study) if s.split == "train")
    path = written(tmp_path / "f.jsonl", {"study_id": study.study_id, "chosen": "a", "rejected": "b"}, "?")
    words = ["pairs", "tiny", f"run_dir={ready.dir}", *OVERRIDES, f"pairs.feedback={path}"]
    for name in ("pairs.jsonl", "pairs_summary.json"):
        ready.path(name).unlink()
    manifest = read_json(ready.path("manifest.json"))
    for stage in ("pairs", "train", "evaluate"):
        manifest["stages"].pop(stage)
    ready.path("manifest.json").write_text(json.dumps(manifest))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "feedback: 1 pairs of weight 5 from 2 rows" in done.output and f"{path}:2: invalid JSON" in done.output
