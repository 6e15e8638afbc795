"""The small contrastive expert: its loss, what it is measured by, and a checkpoint that the judge `visual` opens."""

import json
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chexalign.data.phantom import phantom
from chexalign.errors import RecipeError
from chexalign.judges import from_recipe, load
from chexalign.recipe.recipe import Recipe
from chexalign.recipe.warmup import ExpertPhase
from chexalign.records import Study
from chexalign.run.folder import Run, open_run
from chexalign.stages.warmup import _expert
from chexalign.train.warmup.expert import (
    ExpertExample,
    ExpertSettings,
    ExpertTask,
    contrastive,
    expert_examples,
    statements,
    train_expert,
)
from chexalign.train.warmup.expert_measure import add_finding, deny, measure_expert, retrieval, swap_side

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3], [1.0, -0.5, 0.2]])


def test_contrastive_is_infonce_both_ways_where_no_two_reports_say_the_same():
    """Parity with torch's cross-entropy on rows and on columns."""
    target = torch.arange(3)
    expected = 0.5 * (
        F.cross_entropy(LOGITS, target, reduction="none") + F.cross_entropy(LOGITS.T, target, reduction="none")
    )
    assert torch.allclose(contrastive(LOGITS, torch.eye(3)), expected)


def test_contrastive_by_hand_with_two_reports_that_say_the_same():
    """Row 0 of zeros in a 2×2: both are right, each term is log 2."""
    assert contrastive(torch.zeros(2, 2), torch.ones(2, 2)).tolist() == pytest.approx([math.log(2)] * 2)
    confident = torch.tensor([[9.0, 9.0], [9.0, 9.0]])
    assert contrastive(confident, torch.ones(2, 2)).tolist() == pytest.approx([math.log(2)] * 2)


def test_contrastive_does_not_depend_on_order_and_pulls_its_own_pair_together():
    order = torch.tensor([2, 0, 1])
    same = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 1, 1]])
    shuffled = contrastive(LOGITS[order][:, order], same[order][:, order])
    assert torch.allclose(shuffled, contrastive(LOGITS, same)[order])
    logits = LOGITS.clone().requires_grad_()
    contrastive(logits, torch.eye(3)).sum().backward()
    assert (logits.grad.diag() < 0).all() and (logits.grad[~torch.eye(3, dtype=bool)] > 0).all()


def test_statements_are_the_present_findings_with_side_zone_and_extent():
    report = "Small left pleural effusion. Bilateral opacities. No pneumothorax. The heart is severely enlarged."
    assert statements(report) == {
        "Pleural Effusion", "Pleural Effusion/left", "Pleural Effusion/small", "Lung Opacity", "Lung Opacity/left",
        "Lung Opacity/right", "Cardiomegaly", "Cardiomegaly/severe",
    }  # fmt: skip
    assert statements("The lungs are clear.") == frozenset()


def test_an_item_of_weight_0_moves_no_others_value():
    """Multi-process batches are filled up with such items."""
    items = [ExpertExample(torch.zeros(1), torch.zeros(1), torch.zeros(2), frozenset({str(i)})) for i in range(3)]
    task = ExpertTask(torch.nn.Identity())
    read = 3 * 2 * math.log(2)  # three maps, two statements, logits of 0
    whole, _ = task.loss((LOGITS, (torch.zeros(3, 2),) * 3), items)
    assert torch.allclose(whole, contrastive(LOGITS, torch.eye(3)) + read)
    filled, _ = task.loss((LOGITS, (torch.zeros(3, 2),) * 3), items, torch.tensor([1.0, 1.0, 0.0]))
    alone, _ = task.loss((LOGITS[:2, :2], (torch.zeros(2, 2),) * 3), items[:2])
    assert torch.allclose(filled[:2], alone, atol=1e-5) and torch.isfinite(filled).all()


# ---- what it is measured by


def test_retrieval_by_hand():
    """Image 0 finds its report first; image 1 third; image 2 second, behind a report that says the same."""
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.1, 0.5], [0.1, 0.7, 0.6]])
    says = [frozenset("a"), frozenset("b"), frozenset("b")]
    found = retrieval(scores, says)
    assert found["r_at_1"] == pytest.approx(1 / 3, abs=1e-4) and found["r_at_5"] == 1 and found["median_rank"] == 2
    assert found["same_findings_r_at_1"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["chance_r_at_1"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["same_findings_chance_r_at_1"] == pytest.approx(5 / 9, abs=1e-4)
    assert retrieval(np.ones((4, 4)), [frozenset(str(i)) for i in range(4)])["r_at_1"] == 0  # a constant knows nothing


REPORT = "The heart is normal in size. There is a small left pleural effusion. No pneumothorax."


def test_wrong_versions_of_a_report_change_one_finding():
    rng = random.Random(0)
    assert swap_side(REPORT, rng, []) == REPORT.replace("left", "right")
    assert deny(REPORT, rng, []) == REPORT.replace("There is a small left pleural effusion.", "No pleural effusion.")
    added = add_finding(REPORT, rng, ["There is a large right pneumothorax."])
    assert (
        added
        == "The heart is normal in size. There is a small left pleural effusion. There is a large right pneumothorax."
    )
    clear = "The lungs are clear."
    assert swap_side(clear, rng, []) is None and deny(clear, rng, []) is None
    assert add_finding(REPORT, rng, ["Left pleural effusion."]) is None  # it is there already


# ---- the whole way, small


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    splits = iter(["train"] * 36 + ["test"] * 12)
    seen: dict[str, str] = {}
    return root, list(phantom(3, 48, 32, root, lambda patient: seen.setdefault(patient, next(splits))))


@pytest.fixture(scope="module")
def trained(studies, tmp_path_factory):
    root, rows = studies
    folder = tmp_path_factory.mktemp("expert")
    train = [s for s in rows if s.split == "train"]
    train_expert(
        train, root, folder / "expert", folder, ExpertSettings(ExpertPhase(steps=12, batch_size=12), 32, 16, seed=0)
    )
    return folder


def test_training_lowers_the_loss_and_leaves_an_ordinary_checkpoint(trained):
    log = [json.loads(line) for line in (trained / "expert_log.jsonl").read_text().splitlines()]
    assert len(log) == 12 and log[-1]["loss"] < 0.8 * log[0]["loss"] and log[0]["contrast"] > 0
    assert json.loads((trained / "expert/config.json").read_text())["model_type"] == "siglip"
    assert {"model.safetensors", "processor_config.json", "tokenizer.json"} <= {
        p.name for p in (trained / "expert").iterdir()
    }


def test_the_visual_judge_uses_it(trained, studies):
    root, rows = studies
    judge = load("visual", model=str(trained / "expert"), images=root)
    answers = judge.score([s.findings for s in rows[:6]], [""] * 6, rows[:6])
    assert all(-1 <= a.score <= 1 for a in answers) and len({a.score for a in answers}) > 3


def test_the_same_seed_gives_the_same_expert(trained, studies, tmp_path):
    root, rows = studies
    train = [s for s in rows if s.split == "train"]
    train_expert(
        train,
        root,
        tmp_path / "expert",
        tmp_path / "work",
        ExpertSettings(ExpertPhase(steps=12, batch_size=12), 32, 16, seed=0),
    )
    assert (tmp_path / "expert/model.safetensors").read_bytes() == (trained / "expert/model.safetensors").read_bytes()


def test_it_is_measured_with_n_and_says_so(trained, studies, capsys):
    root, rows = studies
    found = measure_expert(trained / "expert", [s for s in rows if s.split == "test"], root, seed=0)
    assert found["n"] == sum(s.split == "test" for s in rows) and 0 <= found["r_at_1"] <= found["r_at_5"] <= 1
    assert found["contrast_added"]["n"] <= found["n"] and 0 <= found["contrast_added"]["share"] <= 1
    assert f"of {found['n']} held-out reports" in " ".join(capsys.readouterr().err.split())
    json.dumps(found, allow_nan=False)
    assert measure_expert(trained / "expert", rows[:1], root, seed=0) == {"n": 1}


def test_the_warm_up_trains_it_on_the_training_split_alone(studies, tmp_path, monkeypatch):
    root, rows = studies
    seen: dict[str, set[str]] = {}

    def train(train, root, folder, *rest):
        seen["train"] = {s.split for s in train}
        (folder / "config.json").parent.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr("chexalign.stages.warmup.train_expert", train)
    monkeypatch.setattr(
        "chexalign.stages.warmup.measure_expert", lambda f, held_out, *r: {"splits": {s.split for s in held_out}}
    )
    recipe = Recipe(name="x", studies={"source": "phantom"}, warmup={"expert": {"steps": 5}})
    assert _expert(Run(recipe, tmp_path, {}), rows) == {"splits": {"test"}} and seen == {"train": {"train"}}
    seen.clear()
    _expert(Run(recipe, tmp_path, {}), rows)
    assert not seen  # an expert that is there is not trained again


def test_without_images_there_is_no_expert(tmp_path):
    blind = [Study(study_id=str(i), patient_id=str(i), split="train", findings="No effusion.") for i in range(3)]
    with pytest.raises(RecipeError, match=r"no images with reports to learn from; set warmup\.expert\.steps=0"):
        train_expert(
            blind, tmp_path, tmp_path / "expert", tmp_path, ExpertSettings(ExpertPhase(steps=1), 32, 16, seed=0)
        )


def test_a_run_tells_the_judge_where_its_images_and_its_expert_are(tmp_path):
    given = {"visual": {"model": "expert"}}
    settings = {"score": {"judges": ["finding_f1", "visual"]}, "judges": given, "warmup": {"expert": {"steps": 5}}}
    recipe = Recipe(name="x", run_dir=tmp_path / "run", studies={"source": "phantom"}, **settings)
    run = open_run(recipe)
    judge = from_recipe("visual", run.recipe.judges)
    assert (judge.expert.model, judge.expert.images) == (str(tmp_path / "run/expert"), tmp_path / "run")
    assert recipe.judges == given


def test_statements_too_rare_are_not_learnt_but_still_tell_reports_apart(studies):
    from chexalign.train.warmup.expert import build_expert

    root, rows = studies
    model, processor = build_expert([s.findings for s in rows], 32, 16, seed=0)
    examples = expert_examples(rows, root, processor, model.config.text_config.max_position_embeddings)
    assert all(len(e.ids) == model.config.text_config.max_position_embeddings <= 128 for e in examples)
    assert len(examples[0].labels) < len(set().union(*(e.says for e in examples)))
