"""Scores of known maps, the words of a finding, and a policy whose attention is planted."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from chexalign.evaluation import grounding
from chexalign.evaluation.grounding import ground
from chexalign.evaluation.grounding.maps import overlay
from chexalign.evaluation.grounding.pointing import REACH, coverage, measure, within_reach
from chexalign.evaluation.grounding.words import statements
from chexalign.jsonl import read_records
from chexalign.policies.attention import NoMap
from chexalign.records import Completion, Study
from chexalign.report.run.page import write_page
from chexalign.run.folder import Run, finished_run

LEFT_TOP = [(0.0, 0.0, 0.5, 0.5)]


def test_by_hand():
    attention = np.array([[0.6, 0.1], [0.2, 0.1]])
    scores = measure(attention, LEFT_TOP)
    assert scores == pytest.approx({
        "grounding_pointing": 1, "grounding_mass": 0.6, "grounding_lift": 2.4, "chance_pointing": 0.25, "chance_mass": 0.25,
    })  # fmt: skip
    assert measure(attention[::-1], LEFT_TOP)["grounding_pointing"] == 0
    assert measure(3 * attention, LEFT_TOP) == pytest.approx(scores)  # only shares count


def test_a_box_cuts_patches_and_two_boxes_count_once():
    assert coverage([(0.25, 0.0, 0.75, 0.5)], 2, 2) == pytest.approx(np.array([[0.5, 0.5], [0, 0]]))
    assert coverage([(0, 0, 0.5, 0.5), (0, 0, 0.5, 0.5)], 2, 2).sum() == pytest.approx(1)
    assert coverage([(0, 0, 1, 1)], 3, 5).mean() == 1


def test_reach_is_fifteen_pixels_of_224():
    edge = 0.25 - REACH  # the centre of the first of two patches lies at 0.25
    assert within_reach([(0, 0, edge + 1e-6, 1)], 1, 2).tolist() == [[True, False]]
    assert within_reach([(0, 0, edge - 1e-6, 1)], 1, 2).tolist() == [[False, False]]


def test_uniform_attention_scores_chance_and_none_abstains():
    scores = measure(np.full((6, 6), 0.01), [(0.1, 0.2, 0.45, 0.9)])
    assert scores["grounding_pointing"] == pytest.approx(scores["chance_pointing"])
    assert scores["grounding_mass"] == pytest.approx(scores["chance_mass"]) and scores[
        "grounding_lift"
    ] == pytest.approx(1)
    assert measure(np.zeros((2, 2)), LEFT_TOP) is None


def test_the_words_of_a_finding_are_its_sentence():
    text = "No pneumothorax. There is a 2.5 cm nodule in the left lung. The heart is enlarged."
    ends = list(range(1, len(text) + 1))  # one token per character
    found = statements(text, ends)
    assert set(found) == {"Lung Lesion", "Cardiomegaly"}  # what is denied is no statement
    nodule = found["Lung Lesion"]
    assert text[slice(*nodule.sentence)].strip() == "There is a 2.5 cm nodule in the left lung."
    assert "nodule" in text[slice(*nodule.mention)]
    assert "".join(text[k] for k in nodule.tokens) == "Thereisa2.5cmnoduleintheleftlung."


def test_overlay_heats_where_it_should():
    film = Image.new("L", (64, 64), 0)
    picture = np.asarray(overlay(film, np.array([[1.0, 0.0], [0.0, 0.0]]), [])).astype(int)
    assert picture.shape == (224, 224, 3) and picture[20, 20, 0] > 150 > 5 > picture[200, 200].max()
    boxed = np.asarray(overlay(film, np.zeros((2, 2)), [(0.5, 0.5, 1.0, 1.0)]))
    assert tuple(boxed[112, 180]) == (90, 200, 255) and boxed[60, 60].max() == 0


# ---- a whole run


@pytest.fixture
def run(tiny_run, tmp_path):
    """The tiny run's studies and policies, with a folder of its own to write to."""
    source = finished_run(tiny_run)
    for name in ("studies.jsonl", "manifest.json", "results.json", "baseline", "policy"):
        (tmp_path / name).symlink_to(tiny_run / name)
    shutil.copytree(tiny_run / "images", tmp_path / "images")  # a link that leaves the run is refused
    asked = source.recipe.evaluate.model_copy(update={"grounding": True, "bootstrap": 50})
    return Run(source.recipe.model_copy(update={"evaluate": asked}), tmp_path, source.manifest)


@pytest.fixture
def studies(run):
    return [s for s in read_records(run.path("studies.jsonl"), Study) if s.labels["boxes"]][:6]


def reports(studies):
    return {
        w: [Completion(s.study_id, 0, s.findings, None, 1, "stop", w, 0) for s in studies]
        for w in ("baseline", "aligned")
    }


def planted(studies, which):
    """Attention to the patch at the middle of the study's first box, or to the corner."""

    def look(policy, prompts, tokens):
        maps = []
        for prompt, written in zip(prompts, tokens, strict=True):
            study = next(s for s in studies if s.images[0][0] == prompt.images[0])
            x0, y0, x1, y1 = next(iter(study.labels["boxes"].values()))[0]
            heat = torch.full((len(written), 8, 8), 1e-6)
            row, column = (int((y0 + y1) * 4), int((x0 + x1) * 4)) if policy.name == which else (0, 0)
            heat[:, row, column] = 0.5
            maps.append([heat])
        return maps

    return look


def test_a_policy_that_looks_at_the_finding_scores_one(run, studies, monkeypatch):
    one = [replace(s, labels={**s.labels, "boxes": dict(list(s.labels["boxes"].items())[:1])}) for s in studies]
    monkeypatch.setattr(grounding, "image_attention", planted(one, "policy"))
    donors = [(i + 1) % len(one) for i in range(len(one))]
    found = ground(run, one, reports(one), donors)
    assert found["aligned"]["grounding_pointing"]["mean"] == 1 > found["baseline"]["grounding_pointing"]["mean"]
    assert found["aligned"]["grounding_mass"]["mean"] > 0.9 and found["difference"]["grounding_pointing"]["low"] > 0
    assert found["own"]["aligned"]["grounding_pointing"]["mean"] == 1
    other = found["controls"]["other_image"]["aligned"]["grounding_pointing"]["mean"]
    assert other < 1 and found["controls"]["other_image"]["above"]["aligned"]["grounding_pointing"][
        "mean"
    ] == pytest.approx(1 - other)
    assert found["counts"]["placed"] == len(one) and found["counts"]["reference"] == len(one)
    assert "stage_1" not in found
    (run.dir / "stages").mkdir()
    (run.dir / "stages" / "stage_1").symlink_to((run.dir / "policy").resolve(), target_is_directory=True)
    staged = ground(run, one, reports(one), donors, ["stage_1"])
    changes = [staged[f"stage_{n}"]["difference"]["grounding_pointing"]["mean"] for n in (1, 2)]
    assert sum(changes) == pytest.approx(staged["difference"]["grounding_pointing"]["mean"]) and "stage_3" not in staged
    assert {k: staged[k] for k in ("baseline", "aligned", "difference", "counts")} == {
        k: found[k] for k in ("baseline", "aligned", "difference", "counts")
    }


def test_real_attention_gives_a_page_with_maps(run, studies, tmp_path):
    study = replace(studies[0], study_id="<b>s0</b>")
    found = ground(run, [study, *studies[1:]], reports([study, *studies[1:]]), [(i + 1) % 6 for i in range(6)])
    for which in ("baseline", "aligned"):
        cell = found[which]["grounding_pointing"]
        assert 0 <= cell["mean"] <= 1 and cell["n"] + cell["abstained"] == 6
    rows = [json.loads(line) for line in (tmp_path / "evaluation/grounding.jsonl").read_text().splitlines()]
    assert {r["words"] for r in rows} == {"reference", "own", "other_words", "other_image"}
    results = json.loads((tmp_path / "results.json").read_text())
    (tmp_path / "results.json").unlink()
    (tmp_path / "results.json").write_text(json.dumps({**results, "grounding": found}))
    page = write_page(tmp_path).read_text()
    assert "Where the models look" in page and page.count("data:image/jpeg") >= 2
    assert "<b>s0</b>" not in page and "&lt;b&gt;s0&lt;/b&gt;" in page and "<script" not in page


def test_without_places_there_are_maps_and_no_scores(run, studies, tmp_path):
    blind = [replace(s, labels={}) for s in studies]
    found = ground(run, blind, reports(blind), list(range(6)))
    assert found["places"] is False and "baseline" not in found
    assert json.loads((tmp_path / "evaluation/grounding_maps.json").read_text())


def test_a_policy_that_cannot_be_mapped_abstains_with_the_reason(run, studies, monkeypatch):
    def refuse(*_):
        raise NoMap("XModel: no grid")

    monkeypatch.setattr(grounding, "image_attention", refuse)
    assert ground(run, studies, reports(studies), list(range(6))) == {"abstained": "XModel: no grid"}
