"""Stage `score`: judges by recipe line with their options, resume after a kill, abstentions and versions kept apart."""

import pytest

from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_records, write_records
from chexalign.recipe.files import build_recipe
from chexalign.records import Completion, Study, Verdict
from chexalign.run.folder import Run, open_run
from chexalign.stages import score

LINE = "gate(format, 0.5*rouge_l + 0.5*finding_f1)"
TEXTS = ["Small left effusion.", "<report>Small left effusion.</report>", ""]


def recipe_with(**sections):
    base = {
        "name": "x",
        "studies": {"source": "phantom"},
        "warmup": {},
        "evaluate": {"judges": ["rouge_l"], "headline": ["rouge_l"]},
    }
    return build_recipe({**base, **sections}, "r.yaml")


@pytest.fixture
def run(tmp_path):
    recipe = recipe_with(
        score={"judges": ["rouge_l", LINE]}, pairs={"judge": LINE}, judges={"rouge_l": {"use_stemmer": True}}
    )
    studies = [Study("s1", "p1", "train", findings="Small left effusions."), Study("s2", "p2", "train", findings="")]
    rows = [Completion(s.study_id, i, t, None, 3, "stop", "p", 0) for s in studies for i, t in enumerate(TEXTS)]
    write_records(tmp_path / "studies.jsonl", studies)
    write_records(tmp_path / "completions.jsonl", rows)
    return Run(recipe, tmp_path, {"stages": {}})


def test_every_judge_answers_every_report_with_its_options(run):
    result = score.score_completions(run)
    rows = read_records(run.path("verdicts.jsonl"), Verdict)
    assert [(r.study_id, r.sample_index, r.judge) for r in rows[:3]] == [
        ("s1", 0, "rouge_l"),
        ("s1", 0, LINE),
        ("s1", 1, "rouge_l"),
    ]
    found = {(r.study_id, r.sample_index, r.judge): r.score for r in rows}
    assert found["s1", 0, "rouge_l"] == 1 and found["s1", 1, LINE] == 1 and found["s1", 0, LINE] == 0
    assert found["s1", 2, "rouge_l"] == 0 and found["s2", 0, "rouge_l"] is None
    assert result.rows_out == 12 and result.dropped == {"rouge_l: abstained": 3, f"{LINE}: abstained": 1}
    assert {r.judge_version for r in rows if r.judge == "rouge_l"} == {"1 Porter stemmer"}


def test_it_resumes_where_it_was_killed(run, monkeypatch):
    monkeypatch.setattr("chexalign.stages.score.BATCH", 2)
    whole, asked = score._verdicts, []

    def dying(judge, name, completions, *rest):
        asked.append([(name, *c.key()) for c in completions])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return whole(judge, name, completions, *rest)

    monkeypatch.setattr(score, "_verdicts", dying)
    with pytest.raises(KeyboardInterrupt):
        score.score_completions(run)
    score.score_completions(run)
    assert len(read_records(run.path("verdicts.jsonl"), Verdict)) == 12
    done = [key for batch in asked[:2] + asked[3:] for key in batch]
    assert len(done) == len(set(done)) == 12


def test_verdicts_of_two_versions_do_not_mix(run, monkeypatch):
    half = read_half(run, monkeypatch)
    run.recipe = recipe_with(score={"judges": ["rouge_l", LINE]}, pairs={"judge": LINE})  # without the stemmer now
    with pytest.raises(WorkError, match="version 1 Porter stemmer, now 1 no stemmer; delete it"):
        score.score_completions(run)
    assert half == run.path("verdicts.jsonl.part").read_text()


def read_half(run, monkeypatch):
    """The part file of a run that was killed after its first judge."""
    whole = score._verdicts
    with monkeypatch.context() as patch:
        patch.setattr(
            score, "_verdicts", lambda judge, name, *rest: 1 / 0 if name == LINE else whole(judge, name, *rest)
        )
        with pytest.raises(ZeroDivisionError):
            score.score_completions(run)
    return run.path("verdicts.jsonl.part").read_text()


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        (
            {"score": {"judges": ["rank(rouge_l)"]}, "pairs": {"judge": "rank(rouge_l)"}},
            RecipeError,
            "reward for online training",
        ),
        ({"score": {"judges": ["rouge"]}, "pairs": {"judge": "rouge"}}, RecipeError, "did you mean rouge_l"),
        ({"judges": {"rouge_l": {"stem": True}}}, RecipeError, "unknown option 'stem'"),
        (
            {"judges": {"meteor_1.5": {"jar": "/no.jar"}}, "score": {"judges": ["meteor_1.5", "finding_f1"]}},
            WorkError,
            "cannot run here",
        ),
    ],
)
def test_a_recipe_with_a_wrong_judge_stops_before_anything_is_written(tmp_path, sections, error, message):
    recipe = recipe_with(**sections, run_dir=str(tmp_path / "run"))
    with pytest.raises(error, match=message):
        open_run(recipe)
    assert not (tmp_path / "run").exists()
