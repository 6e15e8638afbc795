"""The whole road on the tiny recipe: every file is there, has the promised shape, and agrees with its neighbours."""

import json
import math

import pytest

from chexalign.jsonl import read_records
from chexalign.policies import Policy
from chexalign.records import Completion, Pair, Study, Verdict

BLOCK = {"baseline", "aligned", "difference", "length", "n_studies", "decoding"}
CELL = {"mean", "low", "high", "n", "abstained"}


@pytest.fixture(scope="module")
def results(tiny_run):
    return json.loads((tiny_run / "results.json").read_text())


def test_results_have_the_promised_shape(results):
    assert set(results) >= BLOCK | {"subsets", "controls", "warnings", "headline", "level", "n_bootstrap"}
    assert results["n_studies"] == 8 and results["decoding"] == "temperature 1.0"
    for block in (results, *results["subsets"].values()):
        assert set(block) >= BLOCK - {"length"}
        for side in ("baseline", "aligned", "difference"):
            for cell in block[side].values():
                assert set(cell) >= CELL
                if cell["low"] is not None:
                    assert cell["low"] <= cell["mean"] + 1e-9 and cell["mean"] <= cell["high"] + 1e-9
    assert {"greedy", "abnormal", "greedy_abnormal", "shuffled"} <= set(results["subsets"])
    assert any(name.startswith("finding/") for name in results["subsets"])
    for metric in (
        "chexpert_rule_f1",
        "finding_f1",
        "rouge_l",
        "words",
        "chexpert_rule_micro13",
        "chexpert_rule_macro5",
    ):
        assert metric in results["aligned"]
    assert set(results["length"]) == {"baseline", "aligned", "reference"}
    assert set(results["controls"]) == {"template", "shuffled_images"}


def test_differences_are_aligned_minus_baseline(results):
    for metric, cell in results["difference"].items():
        expected = results["aligned"][metric]["mean"] - results["baseline"][metric]["mean"]
        assert cell["mean"] == pytest.approx(expected, abs=1e-9), metric


def test_the_gain_is_split_into_what_needs_the_images_and_what_does_not(results):
    """All test studies have another's images here, so the part that needs the right ones is the difference of both gains."""
    assert results["subsets"]["shuffled"]["n_studies"] == results["n_studies"]
    for metric, cell in results["controls"]["shuffled_images"]["gain"].items():
        right, blind = (b["difference"][metric]["mean"] for b in (results, results["subsets"]["shuffled"]))
        assert cell["mean"] == pytest.approx(right - blind, abs=1e-9), metric


def test_a_judges_cell_is_the_mean_of_its_verdicts(results, tiny_run):
    verdicts = read_records(tiny_run / "evaluation/aligned.temperature_1.verdicts.jsonl", Verdict)
    scores = [v.score for v in verdicts if v.judge == "rouge_l"]
    assert results["aligned"]["rouge_l"]["mean"] == pytest.approx(sum(scores) / len(scores))


def test_pairs_come_from_the_scores(tiny_run):
    completions = {c.key(): c for c in read_records(tiny_run / "completions.jsonl", Completion)}
    scores = {v.key()[:2]: v.score for v in read_records(tiny_run / "verdicts.jsonl", Verdict) if v.judge == "rouge_l"}
    pairs = read_records(tiny_run / "pairs.jsonl", Pair)
    assert pairs
    for pair in pairs:
        mine = [s for (study, _), s in scores.items() if study == pair.study_id]
        assert pair.chosen_score == max(mine) > min(mine) == pair.rejected_score
        texts = {c.text: c for k, c in completions.items() if k[0] == pair.study_id}
        assert texts[pair.chosen].logp == pair.ref_chosen_logp and texts[pair.rejected].tokens == pair.rejected_tokens
    summary = json.loads((tiny_run / "pairs_summary.json").read_text())
    assert summary["n_pairs"] == len(pairs)
    assert summary["n_pairs"] + summary["dropped_ties"] + summary["dropped_abstained"] == summary["n_studies"]
    assert summary["chosen"]["score"]["mean"] == pytest.approx(sum(p.chosen_score for p in pairs) / len(pairs))


def test_trl_export_matches_the_pairs(tiny_run):
    pairs = read_records(tiny_run / "pairs.jsonl", Pair)
    rows = [json.loads(line) for line in (tiny_run / "pairs_trl.jsonl").read_text().splitlines()]
    assert len(rows) == len(pairs)
    for row, pair in zip(rows, pairs, strict=True):
        assert set(row) == {"prompt", "images", "chosen", "rejected"}
        assert row["chosen"][0]["content"][0]["text"] == pair.chosen and row["chosen"][0]["role"] == "assistant"
        assert sum(part["type"] == "image" for part in row["prompt"][0]["content"]) == len(row["images"])
        assert all((tiny_run / image).is_file() for image in row["images"])


def test_only_training_studies_are_sampled_and_only_test_studies_evaluated(tiny_run):
    split = {s.study_id: s.split for s in read_records(tiny_run / "studies.jsonl", Study)}
    sampled = {c.study_id for c in read_records(tiny_run / "completions.jsonl", Completion)}
    evaluated = {c.study_id for c in read_records(tiny_run / "evaluation/aligned.greedy.jsonl", Completion)}
    assert {split[i] for i in sampled} == {"train"} and {split[i] for i in evaluated} == {"test"}


def test_training_starts_at_log_2(tiny_run):
    first = json.loads((tiny_run / "train_log.jsonl").read_text().splitlines()[0])
    assert first["margin"] == pytest.approx(0.0, abs=1e-4)
    assert first["loss"] - 0.1 * first["nll"] == pytest.approx(math.log(2), abs=1e-4)  # the recipe's NLL weight is .1


def test_the_tower_is_frozen_while_aligning(tiny_run):
    before, after = (Policy.load(tiny_run / n).model.state_dict() for n in ("baseline", "policy"))
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and not any("vision_tower" in name for name in moved)
    assert any("multi_modal_projector" in name for name in moved) and any("language_model" in name for name in moved)


def test_the_policy_is_an_ordinary_checkpoint(tiny_run):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(tiny_run / "policy", local_files_only=True)
    processor = AutoProcessor.from_pretrained(tiny_run / "policy", local_files_only=True)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert processor.chat_template and processor.tokenizer.eos_token == "</s>"


def test_the_page_is_there_and_holds_no_script(tiny_run):
    page = (tiny_run / "report.html").read_text()
    assert "tiny" in page and "<script" not in page and "http-equiv" in page
