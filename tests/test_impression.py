"""Findings → impression (RGRO) on the same stages, with a random Llama in place of a real language model."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from chexalign.cli.commands import app
from chexalign.errors import RecipeError
from chexalign.jsonl import read_records
from chexalign.policies import Policy
from chexalign.policies.adapters import has_adapter
from chexalign.policies.trainable import refuse_before_adapter
from chexalign.recipe.files import build_recipe
from chexalign.records import Completion, Pair, Study, Verdict
from chexalign.run.finished import export, write
from chexalign.run.folder import finished_run
from chexalign.run.policies import open_policy, prompts_for
from chexalign.run.studies import sampled_studies, warmup_studies
from chexalign.stages.runner import run_stages
from chexalign.stages.score import judge_to
from tests.policies.text_model import build_llama

SIDES, SIZES = ("left", "right"), ("Small", "Moderate", "Large")


def rows():
    """40 studies; three lack a section, one holds OpenI's masks."""
    found = []
    for i in range(40):
        abnormal, side, size = i % 3 > 0, SIDES[i % 2], SIZES[i % 3]
        told = f"{size} {side} pleural effusion. Heart size is normal." if abnormal else "The lungs are clear."
        short = f"{size} {side} pleural effusion." if abnormal else "No acute cardiopulmonary disease."
        split = "train" if i < 26 else "val" if i < 32 else "test"
        row = {"study_id": f"s{i}", "split": split, "findings": told, "impression": short}
        found.append({**row, "indication": "Cough." if i % 2 else ""})
    found[1]["impression"], found[2]["findings"], found[27]["impression"] = "", " ", "."
    found[3]["findings"] = "Normal chest x-XXXX. XXXX lungs are clear."
    return found


def raw(folder, tmp_path, **changes):
    lora = {"r": 4, "alpha": 8}
    return {
        "name": "small",
        "task": "impression",
        "run_dir": str(tmp_path / "run"),
        "studies": {"source": "jsonl", "root": str(tmp_path / "studies.jsonl"), "masks": "remove"},
        "policy": {"model": str(folder)},
        "warmup": {
            "share": 0.6,
            "lora": lora,
            "tower": {"steps": 0},
            "reports": {"steps": 6, "batch_size": 8, "eval_every": 3, "lr": 1e-2},
        },
        "sample": {"n": 2, "max_new_tokens": 12, "studies": "rest"},
        "score": {"judges": ["rouge_l", "pairwise"]},
        "judges": {"pairwise": {"judge": "rouge_l"}},
        "pairs": {"judge": "pairwise", "rule": "reference_loser"},
        "train": {"algorithm": {"type": "dpo", "beta": 0.5}, "lora": lora, "lr": 1e-2, "batch_size": 4, "epochs": 3},
        "evaluate": {
            "judges": ["rouge_1", "rouge_l", "chexpert_rule_f1", "finding_consistency"],
            "headline": ["rouge_l"],
            "bootstrap": 20,
            "untuned": True,
        },
        "report": {"examples": 2},
        **changes,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(recipe as a mapping, run folder) of the whole road."""
    tmp_path = tmp_path_factory.mktemp("impression")
    folder = build_llama(tmp_path / "llama")
    (tmp_path / "studies.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows()))
    recipe = raw(folder, tmp_path)
    run_stages(build_recipe(recipe, "test"), list(finished_stages()))
    return recipe, tmp_path / "run"


def finished_stages():
    from chexalign.run.folder import STAGES

    return STAGES


def test_studies_without_a_section_are_dropped_and_counted(made):
    manifest = json.loads((made[1] / "manifest.json").read_text())
    assert manifest["stages"]["studies"]["dropped"] == {"empty reference": 2, "no findings": 1}
    studies = {s.study_id: s for s in read_records(made[1] / "studies.jsonl", Study)}
    assert len(studies) == 37
    assert studies["s3"].findings == "Normal chest x-ray. lungs are clear."


def test_the_prompt_is_the_findings_in_the_models_own_template(made):
    run = finished_run(made[1])
    policy = open_policy(run, "baseline")
    studies = [
        Study("a", "a", "test", findings="Clear lungs.", impression="Fine."),
        Study("b", "b", "test", indication="Cough.", findings="Clear lungs.", impression="Fine."),
    ]
    plain, told = prompts_for(run, policy, studies)
    ask = "Findings: Clear lungs.\nWrite the impression of this chest X-ray.<|assistant|>"
    assert plain.text == f"<|user|>{ask}"
    assert told.text == f"<|user|>Indication: Cough.\n{ask}"
    assert not plain.images and "Fine" not in told.text


def test_the_shares_do_not_overlap_and_a_smaller_one_is_part_of_a_larger(made):
    train = [s for s in read_records(made[1] / "studies.jsonl", Study) if s.split == "train"]

    def parts(share):
        recipe = build_recipe({**made[0], "warmup": {**made[0]["warmup"], "share": share}}, "r")
        return {s.study_id for s in warmup_studies(recipe, train)}, {s.study_id for s in sampled_studies(recipe, train)}

    (small, rest), (large, _) = parts(0.5), parts(0.8)
    assert small < large and not small & rest and len(small | rest) == len(train)
    drawn = {c.study_id for c in read_records(made[1] / "completions.jsonl", Completion)}
    assert drawn == parts(0.6)[1]


def test_the_pairs_are_the_radiologists_text_against_the_loser(made):
    studies = {s.study_id: s for s in read_records(made[1] / "studies.jsonl", Study)}
    verdicts = {
        (v.study_id, v.sample_index, v.judge): v.score for v in read_records(made[1] / "verdicts.jsonl", Verdict)
    }
    texts = {c.key(): c.text for c in read_records(made[1] / "completions.jsonl", Completion)}
    pairs = read_records(made[1] / "pairs.jsonl", Pair)
    assert pairs
    for pair in pairs:
        assert pair.chosen == studies[pair.study_id].impression and pair.chosen_score is None
        shares = [verdicts[pair.study_id, j, "pairwise"] for j in (0, 1)]
        overlap = [verdicts[pair.study_id, j, "rouge_l"] for j in (0, 1)]
        assert sorted(shares) == [0, 1] and (shares[0] - shares[1]) * (overlap[0] - overlap[1]) >= 0
        assert pair.rejected == texts[pair.study_id, shares.index(0)]


def test_the_exported_pairs_hold_strings_as_a_text_models_template_wants_them(made):
    rows = [json.loads(line) for line in (made[1] / "pairs_trl.jsonl").read_text().splitlines()]
    assert rows and not any(row["images"] for row in rows)
    for row in rows:
        assert all(isinstance(turn["content"], str) for key in ("prompt", "chosen", "rejected") for turn in row[key])


def test_dpo_starts_from_the_frozen_sft_adapter(made):
    """Base + SFT adapter is policy and reference alike before the first update, so the first loss is log 2."""
    first, *later = [json.loads(line) for line in (made[1] / "train_log.jsonl").read_text().splitlines()]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert later and later[-1]["loss"] < 0.69
    run = finished_run(made[1])
    for which in ("baseline", "aligned"):
        assert has_adapter(open_policy(run, which).model)


def test_the_warm_up_learns_and_the_references_are_impressions(made):
    log = [json.loads(line) for line in (made[1] / "warmup/report_log.jsonl").read_text().splitlines()]
    losses = [row["val_loss"] for row in log if "val_loss" in row]
    assert losses[-1] < losses[0]
    results = json.loads((made[1] / "results.json").read_text())
    tests = [s for s in read_records(made[1] / "studies.jsonl", Study) if s.split == "test"]
    words = sum(len(s.impression.split()) for s in tests) / len(tests)
    assert results["task"] == "impression" and results["length"]["reference"] == pytest.approx(words)
    assert "shuffled_images" not in results["controls"]
    assert set(results["aligned"]) >= {"rouge_1", "rouge_l", "chexpert_rule_f1", "finding_consistency", "words"}


def test_the_untuned_model_is_evaluated_beside_the_baseline(made):
    results = json.loads((made[1] / "results.json").read_text())
    for name in ("warmup", "greedy_warmup"):
        before, after = (results["subsets"][name][side]["rouge_l"]["mean"] for side in ("baseline", "aligned"))
        gained = results["subsets"][name]["difference"]["rouge_l"]
        assert gained["mean"] == pytest.approx(after - before) and gained["low"] is not None
    assert results["subsets"]["warmup"]["aligned"] == results["baseline"]
    assert not has_adapter(open_policy(finished_run(made[1]), "untuned").model)


def test_the_page_shows_what_an_impression_was_written_from(made, tmp_path):
    from chexalign.report.run.page import write_page

    shutil.copytree(made[1], tmp_path / "run")
    page = write_page(tmp_path / "run").read_text()
    (first, *_) = json.loads((made[1] / "examples.json").read_text())
    assert f"Findings: {first['findings']}" in page and "no image was kept" not in page


def test_the_export_says_the_same_in_plain_transformers(made, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, folder = finished_run(made[1]), export(made[1], tmp_path / "model")
    policy = open_policy(run, "aligned")
    prompt = prompts_for(run, policy, [Study("a", "a", "test", findings="Small left pleural effusion.")])[0]
    (ours,) = policy.generate([prompt], 1, 0.0, 20)[0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt.text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
    with torch.no_grad():
        out = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(out, skip_special_tokens=True).strip() == policy.text(ours.tokens)
    assert not (folder / "adapter_config.json").exists()
    assert "Write the impression" in (folder / "README.md").read_text()
    assert export(made[1], tmp_path / "model") == folder  # again: replaced as a whole
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="not empty"):
        export(made[1], tmp_path / "mine")


def test_write_prints_an_impression(made, tmp_path):
    done = CliRunner().invoke(app, ["write", str(made[1]), "--findings", "Small left pleural effusion."])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == write(made[1], "Small left pleural effusion.", "", [])
    with pytest.raises(RecipeError, match="--findings"):
        write(made[1], "", "", [])
    with pytest.raises(RecipeError, match="manifest"):
        write(tmp_path, "x", "", [])


def test_a_group_judge_resumes_with_whole_groups(made, tmp_path, monkeypatch):
    """A verdict that a crash lost is made again with the other report of its study beside it."""
    run = finished_run(made[1])
    monkeypatch.setattr(type(run), "path", lambda self, name: tmp_path / name)
    completions = read_records(made[1] / "completions.jsonl", Completion)
    studies = {s.study_id: s for s in read_records(made[1] / "studies.jsonl", Study)}
    whole = {v.key(): v.score for v in read_records(made[1] / "verdicts.jsonl", Verdict)}
    kept = [v for v in read_records(made[1] / "verdicts.jsonl", Verdict) if v.judge == "pairwise"][1:]
    (tmp_path / "v.jsonl.part").write_text("".join(v.to_json() + "\n" for v in kept))
    again = judge_to(run, "v.jsonl", completions, studies, ["pairwise"], "again")
    assert {v.key(): v.score for v in again} == {k: s for k, s in whole.items() if k[2] == "pairwise"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"model": "tiny"}}, "tiny"),
        ({"evaluate": {"judges": ["pairwise"], "headline": ["pairwise"]}}, "group"),
        ({"sample": {"studies": "rest"}, "warmup": {"share": 1.0, "tower": {"steps": 0}}}, "warmup.share"),
        ({"task": "summary"}, "task"),
        ({"warmup": None, "sample": {}, "train": {}, "evaluate": {"untuned": True}}, "before a warm-up"),
        ({"policy": {"model": "x", "prompt": "Write."}}, "neither the findings nor an image"),
    ],
)
def test_a_wrong_recipe_gets_one_clear_line(made, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        recipe = build_recipe({**made[0], "run_dir": str(tmp_path / "other"), **changes}, "r")
        from chexalign.policies.presets import wording_of
        from chexalign.run.folder import open_run

        wording_of(recipe)
        open_run(recipe)


def test_an_adapter_that_train_could_not_continue_is_refused_before_the_warm_up(made, tmp_path):
    recipe = made[0]
    other = {**recipe, "run_dir": str(tmp_path / "other"), "train": {**recipe["train"], "lora": {"r": 3}}}
    with pytest.raises(RecipeError, match="r is 4 there and 3 here"):
        build_recipe(other, "test")


def test_a_lora_warm_up_whose_projector_should_learn_later_is_refused_first(tiny_folder):
    policy = Policy.load(tiny_folder)
    with pytest.raises(RecipeError, match="projector cannot learn then"):
        refuse_before_adapter(policy, ("tower",))
    refuse_before_adapter(policy, ("tower", "projector"))
