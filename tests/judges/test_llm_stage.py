"""The stage `score` with a judge that asks a server: what it cost is said; a server that dies stops it, and nothing is lost."""

import json

import pytest
from tests.judges.llm_server import answer, serve

from chexalign.errors import WorkError
from chexalign.jsonl import read_records, write_records
from chexalign.judges.line import _shared
from chexalign.llm import endpoint as endpoint_file
from chexalign.recipe.files import load_recipe
from chexalign.records import Completion, Study, Verdict
from chexalign.run.folder import Run
from chexalign.stages import score

N = 60


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint_file, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(score, "BATCH", 20)
    studies = [Study(f"s{i}", f"p{i}", "train", findings="Left effusion.") for i in range(N)]
    texts = [Completion(f"s{i}", 0, f"Effusion {i}.", None, 3, "stop", "p", 0) for i in range(N)]
    write_records(tmp_path / "studies.jsonl", studies)
    write_records(tmp_path / "completions.jsonl", texts)
    return tmp_path


def opened(folder, url, line="facts"):
    options = {"url": url, "model": "m", "retries": 1, "concurrency": 1}
    sections = [f"judges.facts={json.dumps(options)}", f'score.judges=["{line}"]', f'pairs.judge="{line}"']
    return Run(load_recipe("tiny", [*sections, f"run_dir={folder}"]), folder, {"stages": {}})


GOOD = answer('{"facts": [{"fact": "effusion", "labels": {"Pleural Effusion": "present"}}]}')


@pytest.mark.parametrize("line", ["facts", "lc_facts", "min(facts, rouge_l)"])
def test_a_server_that_dies_midway_stops_the_stage_and_a_rerun_asks_for_the_rest(run, capsys, line):
    with serve(lambda n, body: GOOD if n < 30 else None) as served:
        with pytest.raises(WorkError, match=r"judge .*not answering.*29 of its verdicts are kept, the same command"):
            score.score_completions(opened(run, served.url, line))
        assert len(served.bodies) < 40 and not (run / "verdicts.jsonl").exists()
        kept = (run / "verdicts.jsonl.part").read_text().splitlines()
        assert len(kept) == 29 and all(json.loads(row)["score"] is not None for row in kept)
        served.behave, before = lambda n, body: GOOD, len(served.bodies)
        _shared.cache_clear()  # a new process makes its judges anew
        result = score.score_completions(opened(run, served.url, line))
        assert result.rows_out == N and result.dropped == {}
        assert len(served.bodies) - before == N - 29 + 1  # the missing reports, and the reference once more
    rows = read_records(run / "verdicts.jsonl", Verdict)
    assert all(row.score is not None for row in rows)
    assert "requests (0 retries, 0 prompts without an answer" in " ".join(capsys.readouterr().err.split())


def test_a_single_time_out_is_an_abstention_and_no_reason_to_stop(run, capsys):
    with serve(lambda n, body: (500, {}, b"") if "Effusion 7." in str(body) else GOOD) as served:
        result = score.score_completions(opened(run, served.url))
    assert result.dropped == {"facts: abstained": 1}
    row = next(r for r in read_records(run / "verdicts.jsonl", Verdict) if r.score is None)
    assert row.study_id == "s7" and "HTTP 500" in row.error
