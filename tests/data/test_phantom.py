"""The phantom: the same study for the same number, drawn where it says, reported as it is."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chexalign.data.phantom import Finding, make_study, patient_of, phantom, streams
from chexalign.data.phantom.draw import DRAW, draw, draw_places
from chexalign.data.phantom.law import CHEXPERT, CHEXPERT_14, KINDS
from chexalign.data.phantom.text import DENIALS, SENTENCES, SUMMARIES
from chexalign.records import Study

SIZE = 96
LUNG = ("edema", "consolidation", "opacity", "atelectasis", "nodule", "effusion", "pneumothorax")
EVERY = (  # one finding of each sign, on each side it can take
    *(Finding("effusion", side, size=size) for side in ("left", "right") for size in ("small", "moderate", "large")),
    *(
        Finding("pneumothorax", side, size=size)
        for side in ("left", "right")
        for size in ("small", "moderate", "large")
    ),
    *(
        Finding(kind, side, zone, size="small" if kind == "nodule" else None)
        for kind in ("opacity", "consolidation", "nodule")
        for side in ("left", "right")
        for zone in ("upper", "middle", "lower")
    ),
    *(Finding("atelectasis", side, "lower") for side in ("left", "right")),
    *(Finding("device", side, device=device) for device in ("catheter", "pacemaker") for side in ("left", "right")),
)
MIDDLE = (
    *(Finding("cardiomegaly", severity=severity) for severity in ("mild", "moderate", "severe")),
    *(Finding("edema", severity=severity) for severity in ("mild", "moderate", "severe")),
    *(Finding(kind, "bilateral", "lower", size="moderate") for kind in ("effusion", "opacity", "atelectasis")),
    Finding("device", device="tube"),
)


def _name(finding: Finding) -> str:
    traits = (finding.device or finding.kind, finding.side, finding.zone, finding.size, finding.severity)
    return "-".join(t for t in traits if t)


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return [make_study(0, index, 32)[0] for index in range(500)]


def _drawn(findings: tuple[Finding, ...], number: int = 0, size: int = SIZE):
    return draw(findings, streams(5, number), streams(6, number), size)


def test_a_study_depends_on_its_seed_and_number_only():
    first, image = make_study(3, 17, SIZE)
    np.random.seed(1)
    make_study(3, 4, 64)
    again, same = make_study(3, 17, SIZE)
    assert first == again
    assert np.array_equal(image, same)
    other, different = make_study(4, 17, SIZE)
    assert other.study_id != first.study_id and not np.array_equal(image, different)


def test_global_random_state_is_neither_read_nor_moved():
    before = np.random.get_state(legacy=False)
    make_study(0, 0, SIZE)
    after = np.random.get_state(legacy=False)
    assert repr(before) == repr(after) and np.array_equal(before["state"]["key"], after["state"]["key"])


def test_the_report_does_not_depend_on_the_image_size():
    small, large = make_study(0, 8, 64)[0], make_study(0, 8, 160)[0]
    assert (small.findings, small.impression, small.indication) == (large.findings, large.impression, large.indication)
    for a, b in zip(small.labels["findings"], large.labels["findings"], strict=True):
        assert np.abs(np.subtract(a["box"], b["box"])).max() < 0.06


def test_image_is_an_8_bit_radiograph():
    for size in (64, 96, 160):
        image = make_study(0, 1, size)[1]
        assert image.shape == (size, size) and image.dtype == np.uint8
        assert image.min() < 40 and image.max() > 200 and 60 < image.mean() < 190


def test_lungs_are_dark_and_the_heart_lies_to_the_image_right():
    image = np.mean([_drawn((), n)[0] for n in range(8)], axis=0)
    band = image[int(0.62 * SIZE)]
    right_lung, heart, left_lung = band[int(0.28 * SIZE)], band[SIZE // 2], band[int(0.78 * SIZE)]
    assert max(right_lung, left_lung) + 60 < heart
    assert band[int(0.65 * SIZE)] > band[int(0.35 * SIZE)] + 40


@pytest.mark.parametrize("finding", EVERY, ids=_name)
def test_a_finding_lies_on_its_side_and_in_its_zone(finding: Finding):
    for number in range(6):
        _, [(x0, y0, x1, y1)] = _drawn((finding,), number)
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        if finding.device != "catheter" or finding.side == "right":
            assert ((x0 + x1) / 2 > 0.5) == (finding.side == "left")
        if finding.zone:
            low, high = {"upper": (0.1, 0.42), "middle": (0.35, 0.6), "lower": (0.52, 0.85)}[finding.zone]
            assert low < (y0 + y1) / 2 < high


@pytest.mark.parametrize("finding", EVERY + MIDDLE, ids=_name)
def test_a_finding_changes_the_image_inside_its_box(finding: Finding):
    for number in range(3):
        without, _ = _drawn((), number)
        image, [(x0, y0, x1, y1)] = _drawn((finding,), number)
        change = np.abs(image.astype(float) - without)
        inside = np.zeros(change.shape, bool)
        inside[int(y0 * SIZE) : round(y1 * SIZE), int(x0 * SIZE) : round(x1 * SIZE)] = True
        assert change.sum() > 300
        assert change[inside].sum() > 0.8 * change.sum()
        assert np.percentile(change[inside], 95) > 12


@pytest.mark.parametrize("kind", ["effusion", "pneumothorax", "cardiomegaly"])
def test_worse_findings_are_larger(kind: str):
    sizes, severities = ("small", "moderate", "large"), ("mild", "moderate", "severe")
    side = None if kind == "cardiomegaly" else "right"
    grades = [Finding(kind, side, size=a, severity=b) for a, b in zip(sizes, severities, strict=True)]
    boxes = [_drawn((finding,), 1)[1][0] for finding in grades]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    assert areas == sorted(set(areas))


def test_labels_are_exact(studies: list[Study]):
    for study in studies:
        kinds = {f["kind"] for f in study.labels["findings"]}
        chexpert = study.labels["chexpert"]
        assert tuple(chexpert) == CHEXPERT_14
        assert {n for n, v in chexpert.items() if v} - {"No Finding"} == {CHEXPERT[k] for k in kinds}
        assert chexpert["No Finding"] == int(kinds <= {"device"})


def test_boxes_lie_in_the_image(studies: list[Study]):
    for finding in (f for s in studies for f in s.labels["findings"]):
        x0, y0, x1, y1 = finding["box"]
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def test_prevalence(studies: list[Study]):
    normal = np.mean([s.labels["chexpert"]["No Finding"] for s in studies])
    assert 0.18 < normal < 0.28
    disease = [sum(f["kind"] != "device" for f in s.labels["findings"]) for s in studies]
    assert 1.6 < np.mean([n for n in disease if n]) < 2.0
    seen = Counter(k for s in studies for k in {f["kind"] for f in s.labels["findings"]})
    assert all(0.06 < seen[kind] / len(studies) < 0.35 for kind in KINDS)


def test_reports_read_like_reports(studies: list[Study]):
    texts = [s.findings for s in studies]
    assert 30 <= np.mean([len(t.split()) for t in texts]) <= 45
    for text in texts + [s.impression for s in studies]:
        assert re.fullmatch(r"[A-Z][a-z ]+\.( [A-Z][a-z ]+\.)*", text), text
        assert "None" not in text
    words = re.findall(r"[a-z]+", " ".join(f"{s.indication} {s.findings} {s.impression}" for s in studies).lower())
    assert len(set(words)) < 260
    assert all(s.indication.endswith(".") for s in studies)


DENIED = {  # words of a denial: the kinds it denies
    "lungs are": LUNG,
    "focal consolidation.": ("consolidation", "opacity"),
    "no pleural effusion": ("effusion",),
    "pneumothorax.": ("pneumothorax",),
    "no pulmonary edema": ("edema",),
    "vasculature is normal": ("edema",),
    "heart is normal": ("cardiomegaly",),
    "heart size is normal": ("cardiomegaly",),
    "silhouette is within": ("cardiomegaly",),
}


def test_nothing_drawn_is_denied(studies: list[Study]):
    for study in studies:
        kinds = {f["kind"] for f in study.labels["findings"]}
        for sentence in re.findall(r"[^.]+\.", study.findings.lower()):
            negative = re.search(r"\bno\b|normal|\bclear\b", sentence)
            for words, denied in DENIED.items():
                if negative and words in sentence:
                    assert kinds.isdisjoint(denied), study.findings


def test_every_finding_is_said(studies: list[Study]):
    word = {
        "effusion": "effusion",
        "opacity": "opacit",
        "cardiomegaly": "cardiomegaly|enlarged",
        "device": "catheter|pacemaker|tube",
    }
    for study in studies:
        for finding in study.labels["findings"]:
            assert re.search(word.get(finding["kind"], finding["kind"]), study.findings, re.IGNORECASE), study.findings


def test_tables_cover_every_sign():
    assert set(DRAW) == {name for name, _, _ in SENTENCES}
    assert set(DRAW) - {"catheter", "pacemaker", "tube"} == {name for name, _, _ in SUMMARIES}
    for finding in EVERY + MIDDLE:
        fitting = [
            n
            for n, needs, _ in SENTENCES
            if n == (finding.device or finding.kind) and all(getattr(finding, k) in v for k, v in needs.items())
        ]
        assert len(fitting) >= 3
    assert {kind for rows in DENIALS.values() for kinds, _, _ in rows for kind in kinds} <= set(KINDS)


@pytest.mark.skipif(importlib.util.find_spec("chexalign.labels") is None, reason="no rule labeller in this checkout")
def test_a_rule_labeller_reads_the_truth(studies: list[Study]):
    from chexalign.labels import label_report

    hits = said = true = 0
    for study in studies:
        labels = label_report(study.findings)
        read = {n for n in CHEXPERT_14[:-1] if labels[n] == 1}
        drawn = {n for n in CHEXPERT_14[:-1] if study.labels["chexpert"][n]}
        assert not [n for n in CHEXPERT_14 if labels[n] == -1], study.findings
        hits, said, true = hits + len(read & drawn), said + len(read), true + len(drawn)
    assert 2 * hits / (said + true) >= 0.97


def test_a_fifth_of_the_patients_have_two_studies():
    patients = Counter(patient_of(index) for index in range(3000))
    assert np.mean([n == 2 for n in patients.values()]) == pytest.approx(0.2)
    first, second = make_study(0, 6, SIZE)[0], make_study(0, 7, SIZE)[0]
    assert first.patient_id == second.patient_id and first.study_id != second.study_id


def test_source_writes_images_once(tmp_path: Path):
    rows = list(phantom(2, 6, 64, tmp_path, lambda patient: "val" if patient.endswith("0") else "train"))
    assert [r.study_id for r in rows] == [f"phantom-2-{i:06d}" for i in range(6)]
    assert {r.split for r in rows if r.patient_id.endswith("0")} == {"val"}
    paths = [tmp_path / r.images[0][0] for r in rows]
    with Image.open(paths[3]) as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), make_study(2, 3, 64)[1])
    paths[1].write_bytes(b"")
    kept = [p.stat().st_mtime_ns for p in paths]
    assert list(phantom(2, 6, 64, tmp_path, lambda _: "train"))[0].split == "train"
    assert paths[1].stat().st_size > 0
    assert [p.stat().st_mtime_ns for i, p in enumerate(paths) if i != 1] == [t for i, t in enumerate(kept) if i != 1]
    assert sorted(tmp_path.rglob("*")) == sorted([tmp_path / "images", *paths])


def test_a_study_survives_json(studies: list[Study]):
    for study in studies[:20]:
        assert Study.from_json(study.to_json()) == study
        assert json.loads(study.to_json())["source"] == "phantom"


def test_boxes_by_name_hold_the_parts_of_every_finding(studies: list[Study]):
    apart = 0
    for study in studies:
        boxes = study.labels["boxes"]
        assert set(boxes) == {n for n, v in study.labels["chexpert"].items() if v} - {"No Finding"}
        for finding in study.labels["findings"]:
            x0, y0, x1, y1 = finding["box"]
            mine = boxes[CHEXPERT[finding["kind"]]]
            if finding["kind"] != "device":
                assert len(mine) == (2 if finding["side"] == "bilateral" or finding["kind"] == "edema" else 1)
                apart += len(mine) == 2
                for a, b, c, d in mine:  # each side has its own strongest point, so its box may be a little wider
                    assert a > x0 - 0.07 and b > y0 - 0.07 and c < x1 + 0.07 and d < y1 + 0.07
    assert apart > 20


def test_telling_the_parts_changes_no_pixel():
    findings = (Finding("effusion", "bilateral", size="moderate"), Finding("nodule", "left", "upper", size="small"))
    image, places = draw_places(findings, streams(5, 0), streams(6, 0), SIZE)
    plain, boxes = _drawn(findings)
    assert np.array_equal(image, plain) and [box for box, _ in places] == boxes
    assert [len(parts) for _, parts in places] == [2, 1]
