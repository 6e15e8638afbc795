"""The page: self-contained, escaped, honest about what is missing, the same for the same files."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from make_run import make_run, write_json, write_rows

from chexalign.errors import WorkError
from chexalign.report.run.page import write_page

ATTACKS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</svg><b>x</b>", "{{ 7*7 }}", "</style><i>")
VOID = {"meta", "img", "br", "link", "path", "use", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text; raises on a tag that is closed but not open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("finished") / "run")


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def show(folder: Path) -> Page:
    return Page(write_page(folder).read_text(encoding="utf-8"))


def test_page_is_well_formed_and_self_contained(finished: Path) -> None:
    path = write_page(finished)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert path == finished / "report.html" and page.open == []
    assert html.startswith("<!doctype html>") and '<html lang="en">' in html
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in page.tags
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form", "base"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    assert "http:" not in html and "https:" not in html and "@import" not in html
    assert len(html) < 2_000_000


def test_ids_are_unique_and_every_reference_resolves(finished: Path) -> None:
    html = write_page(finished).read_text(encoding="utf-8")
    page = Page(html)
    ids = Counter(a["id"] for _, a in page.tags if a.get("id"))
    assert [name for name, n in ids.items() if n > 1] == []
    used = set(re.findall(r"url\(#([^)]+)\)", html)) | {(a.get("href") or "#")[1:] for _, a in page.tags} - {""}
    used |= {a["aria-labelledby"] or "" for _, a in page.tags if "aria-labelledby" in a}
    assert used <= set(ids)


def test_headings_do_not_skip_and_images_have_alt_texts(finished: Path) -> None:
    page = show(finished)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    images = [a for tag, a in page.tags if tag == "img"]
    charts = [a for tag, a in page.tags if tag == "svg"]
    assert len(images) == 12 and all(a["alt"] for a in images)
    assert len(charts) == 6 and all(a["role"] == "img" and a["aria-label"] for a in charts)


def test_same_files_give_the_same_page_and_no_leftovers(finished: Path) -> None:
    first = write_page(finished).read_bytes()
    assert write_page(finished).read_bytes() == first
    assert [p.name for p in finished.iterdir() if "tmp" in p.name] == []


def test_failed_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run", n_studies=3)
    old = write_page(folder).read_bytes()

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError):
        write_page(folder)
    assert (folder / "report.html").read_bytes() == old
    assert [p.name for p in folder.iterdir() if "tmp" in p.name] == []


def test_headline_sentence_warning_and_research_note_come_first(finished: Path) -> None:
    text = show(finished).text
    sentence, warning = text.index("the aligned model's CheXpert-rule F1 rose from"), text.index("The reports are poor")
    assert sentence < warning < text.index("Not a medical device") < text.index("Each score is a mean")


def test_phantom_data_is_not_called_a_radiologists_work(tmp_path: Path, finished: Path) -> None:
    assert "The reference is what the radiologist wrote." in show(finished).text
    folder = make_run(tmp_path / "run", n_studies=3)
    edit(folder / "manifest.json", lambda manifest: manifest["recipe"]["studies"].update(source="phantom"))
    text = show(folder).text
    assert "Phantom data" in text and "radiologist" not in text


def test_legend_names_only_the_marks_in_use(finished: Path) -> None:
    text = show(finished).text
    assert "contradicts the reference report" in text and "stated with doubt" not in text


def test_control_at_or_above_the_aligned_model_is_flagged(finished: Path) -> None:
    text = show(finished).text
    assert ".782 ‡ as good as the aligned model or better" in text


def test_the_gain_that_remains_with_wrong_images_is_beside_the_real_one(finished: Path) -> None:
    text = show(finished).text.replace("\u202f", " ")
    table = text[text.index("Does the gain come from the images?") :]
    assert "+.021 [.004, .038]" in table and "+.050 [.010, .090]" in table
    assert table.index("Finding F1") < table.index("+.021") < table.index("+.050")


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_the_files_becomes_markup(tmp_path: Path, attack: str) -> None:
    folder = make_run(tmp_path / "run", n_studies=4)
    plain = Counter(tag for tag, _ in show(folder).tags)

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v if k == "image" or k == "kind" else poison(v) for k, v in value.items()}
        return [poison(v) for v in value] if isinstance(value, list) else attack if isinstance(value, str) else value

    for name in ("examples.json", "pairs_summary.json", "manifest.json"):
        write_json(folder / name, poison(json.loads((folder / name).read_text())))

    def poison_results(results: dict[str, Any]) -> None:
        results["recipe"] = results["decoding"] = attack
        results["warnings"] = [attack]
        results["controls"]["template"]["text"] = attack
        results["headline"].append(attack)
        for side in ("baseline", "aligned", "difference"):
            results[side][attack] = results[side]["rouge_l"]
        results["subsets"][f"finding/{attack}"] = results["subsets"].pop("finding/Edema")

    edit(folder / "results.json", poison_results)
    page = show(folder)
    tags = Counter(tag for tag, _ in page.tags)
    assert page.open == [] and not set(tags) - set(plain) - {"p"}
    assert tags["img"] == plain["img"] and tags["script"] == tags["i"] == tags["b"] == 0
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert page.text.count(" ".join(attack.split())) > 20


def test_marked_text_is_escaped_inside_and_outside_the_mark(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=1)
    text = "<b>Effusion</b> & <i>no</i> edema"
    mark = {"start": 3, "end": 11, "kind": "wrong", "label": 'Pleural "Effusion"'}
    row = {
        "study_id": "<s1>",
        "split": "test",
        "image": None,
        "indication": "a < b",
        "reference": {"text": text, "marks": [mark]},
    }
    write_json(folder / "examples.json", [row])
    page = show(folder)
    assert text.replace("Effusion", 'Effusion ✗ (wrong: Pleural "Effusion") ') in page.text.replace(
        "> Effusion", ">Effusion"
    )
    assert not {"b", "i"} & {tag for tag, _ in page.tags}
    assert "no image was kept" in page.text and "<s1>" in page.text


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("results.json", "results.json is missing"),
        ("manifest.json", "Missing: manifest.json"),
        ("examples.json", "Missing: examples.json"),
        ("pairs_summary.json", "Missing: pairs_summary.json"),
        ("train_log.jsonl", "the training log is missing"),
        ("evaluation/per_study.jsonl", "evaluation/per_study.jsonl has none"),
    ],
)
def test_a_missing_file_is_said_plainly(tmp_path: Path, missing: str, says: str) -> None:
    folder = make_run(tmp_path / "run", n_studies=4)
    (folder / missing).unlink()
    page = show(folder)
    assert page.open == [] and says in page.text


def test_a_run_that_learnt_from_rewards_lacks_no_pairs(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=4)
    (folder / "pairs_summary.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["recipe"].setdefault("train", {})["reward"] = "rank(<visual>)"
    write_json(folder / "manifest.json", manifest)
    page = show(folder)
    assert "rank(<visual>)" in page.text and "Missing: pairs_summary.json" not in page.text


def test_a_run_that_only_began_still_has_a_page(tmp_path: Path) -> None:
    write_json(
        tmp_path / "manifest.json",
        {"recipe": {"name": "young"}, "stages": {"studies": {"rows_in": 4, "finished": None}}},
    )
    page = show(tmp_path)
    assert "young" in page.text and "not finished" in page.text and page.text.count("issing") >= 5


def test_an_empty_or_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="nothing to report"):
        write_page(tmp_path)
    with pytest.raises(WorkError, match="no run folder"):
        write_page(tmp_path / "absent")


def test_abstentions_are_never_zero_or_nan(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=5)
    nobody = {"mean": None, "low": None, "high": None, "n": 0, "abstained": 5}

    def silence(results: dict[str, Any]) -> None:
        for side in ("baseline", "aligned", "difference"):
            results[side]["finding_f1"] = nobody

    edit(folder / "results.json", silence)
    text = show(folder).text
    assert "finding F1 of the two models could not be compared" in text
    assert "Finding F1 finding_f1 abstained abstained abstained" in text
    assert "nan" not in text.lower().split() and "None" not in text


def test_a_result_file_with_nan_is_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=3)
    (folder / "results.json").write_text('{"n_studies": NaN}')
    with pytest.raises(WorkError, match="results.json: it holds NaN"):
        write_page(folder)


def test_a_diverged_loss_is_a_gap_and_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=3)
    log = folder / "train_log.jsonl"
    lines = log.read_text().splitlines()
    lines[10] = lines[10].replace(lines[10].split('"loss": ')[1].split(",")[0], "NaN")
    log.write_text("\n".join(lines[:50]) + '\n{"step": 51, "lo')
    text = show(folder).text
    assert "50 logged steps. The loss was not a finite number at 1 of them." in text
    log.write_text('{"step": 1, "lo\n{"step": 2}\n')
    with pytest.raises(WorkError, match="train_log.jsonl, line 1"):
        write_page(folder)


def test_online_training_and_unknown_judges_are_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=3)
    write_rows(
        folder / "train_log.jsonl", [{"step": i, "loss": 0.1, "reward": 0.1 * i, "kl": 0.01} for i in range(1, 4)]
    )

    def rename(results: dict[str, Any]) -> None:
        for side in ("baseline", "aligned", "difference"):
            results[side]["radeval_x"] = results[side].pop("rouge_l")

    edit(folder / "results.json", rename)
    text = show(folder).text
    assert "Reward of the samples" in text and "KL from the reference model" in text and "radeval_x" in text


def test_labels_with_mathematics_or_other_scripts_are_drawn_as_they_are(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=4)

    def rename(results: dict[str, Any]) -> None:
        results["subsets"]["finding/$x^$ 胸水"] = results["subsets"].pop("finding/Edema")

    edit(folder / "results.json", rename)
    assert "$x^$ 胸水" in show(folder).text


def test_a_persons_pairs_are_told_beside_the_judges(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert "a person's feedback" not in write_page(folder).read_text()
    summary = json.loads((folder / "pairs_summary.json").read_text())
    write_json(folder / "pairs_summary.json", {**summary, "n_feedback": 17})
    assert "Beside them: 17 pairs of a person's feedback" in write_page(folder).read_text()


@pytest.mark.parametrize("n", [9, 10])
def test_below_ten_studies_no_table_and_no_chart_draws_an_interval_or_an_arrow(tmp_path: Path, n: int) -> None:
    from chexalign.report.inputs import read_results
    from chexalign.report.run import tables

    results = read_results(make_run(tmp_path / "run", n_studies=n))
    shown = next(iter(tables.score_tables(results))).rows
    found = tables.findings(results.subsets, results.overall.n_studies)
    spans = [v.interval for r in (*shown, *(f.row for f in found)) for v in (r.baseline, r.aligned, r.difference)]
    assert any(spans) == (n >= 10) and any(r.symbol for r in shown) == (n >= 10)
    assert any(c.low is not None for f in found for c in f.f1) == (n >= 10)
