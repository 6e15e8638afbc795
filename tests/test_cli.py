"""The commands as a person meets them: help with an example, exit codes, one clear line for what is wrong."""

import errno
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

import chexalign.jsonl
from chexalign.cli.commands import app, main

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    "demo", "run", "studies", "warmup", "sample", "score", "pairs", "train", "evaluate", "sweep", "report", "compare",
    "judge", "judges", "scorecard", "recipes", "check", "write", "export", "review",
]  # fmt: skip
SMALL = ["studies.n=30", "studies.test_share=0.2", "studies.val_share=0.2"]


def call(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the console script."""
    monkeypatch.setattr("sys.argv", ["chexalign", *arguments])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0 and f"Example: chexalign {command}" in result.output


def test_no_command_is_forgotten():
    assert {c.name or c.callback.__name__ for c in app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tiny", "sample.temprature=1"], "did you mean 'temperature'"),
        (["run", "tinny"], "did you mean 'tiny'"),
        (["run", "tiny", "score.judges=[rouge_x]", "pairs.judge=rouge_x"], "rouge_"),
        (["run", "tiny", "studies.source=phantoms"], "did you mean 'phantom'"),
        (["judge", "--judge", "finding_f2", "--reference", "a", "--report", "b"], "finding_f1"),
        (["compare", "one"], "one"),
    ],
)
def test_a_wrong_call_is_exit_2_and_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2 and message in err and out == ""
    assert len(err.strip().splitlines()) == 1 and err.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_recipe_is_refused(monkeypatch, capsys, tmp_path):
    folder = f"run_dir={tmp_path / 'run'}"
    assert call(monkeypatch, capsys, "studies", "tiny", folder, *SMALL)[0] == 0
    before = (tmp_path / "run/studies.jsonl").read_bytes()
    code, _, err = call(monkeypatch, capsys, "studies", "demo", folder)
    assert code == 2 and "belongs to recipe 'tiny', not 'demo'" in err
    code, _, err = call(monkeypatch, capsys, "studies", "tiny", folder, *SMALL, "studies.n=31")
    assert code == 2 and "studies.n was 30, is now 31" in err
    (tmp_path / "other").mkdir()
    (tmp_path / "other/precious.txt").write_text("mine")
    code, _, err = call(monkeypatch, capsys, "studies", "tiny", f"run_dir={tmp_path / 'other'}", *SMALL)
    assert code == 2 and "is not empty and holds no manifest.json" in err
    assert (tmp_path / "run/studies.jsonl").read_bytes() == before
    # a setting of a stage that has not started may change
    assert call(monkeypatch, capsys, "studies", "tiny", folder, *SMALL, "train.epochs=3")[0] == 0


def test_restart_forgets_a_stage_and_what_follows(monkeypatch, capsys, tmp_path):
    command = ["run", "tiny", f"run_dir={tmp_path / 'run'}", *SMALL]
    monkeypatch.setattr("chexalign.cli.commands._all_stages", lambda: ["studies"])
    monkeypatch.setattr("chexalign.report.run.page.write_page", lambda folder: folder)
    assert call(monkeypatch, capsys, *command)[0] == 0
    assert call(monkeypatch, capsys, *command, "studies.n=24")[0] == 2
    code, _, err = call(monkeypatch, capsys, *command, "studies.n=24", "--restart", "studies")
    assert code == 0 and "24 out" in err
    assert call(monkeypatch, capsys, *command, "studies.n=24", "--restart", "studiez")[0] == 2


def test_a_stage_that_failed_with_nothing_done_keeps_no_settings(monkeypatch, capsys, tmp_path):
    folder = f"run_dir={tmp_path / 'run'}"
    assert call(monkeypatch, capsys, "evaluate", "tiny", folder, *SMALL)[0] == 1
    assert call(monkeypatch, capsys, "studies", "tiny", folder, *SMALL, "sample.n=2")[0] == 0
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert list(manifest["stages"]) == ["studies"] and manifest["stages"]["studies"]["judges"]["rouge_l"]


def test_a_stage_before_its_time_says_what_is_missing(monkeypatch, capsys, tmp_path):
    code, _, err = call(monkeypatch, capsys, "score", "tiny", f"run_dir={tmp_path / 'run'}")
    assert code == 1 and "completions.jsonl is missing; run the stage that writes it first" in err


def test_a_full_disk_stops_cleanly_and_the_same_command_resumes(monkeypatch, capsys, tmp_path):
    command = ["studies", "tiny", f"run_dir={tmp_path / 'run'}", *SMALL]
    real, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", "studies.jsonl")
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(chexalign.jsonl.os, "fsync", full)
        code, _, err = call(patched, capsys, *command)
    assert code == 1 and "the disk is full" in err and "run the same command again" in err
    assert not (tmp_path / "run/studies.jsonl").exists()
    assert call(monkeypatch, capsys, *command)[0] == 0
    assert len((tmp_path / "run/studies.jsonl").read_text().splitlines()) == 30


def test_two_processes_do_not_share_a_folder(monkeypatch, capsys, tmp_path):
    import fcntl

    assert call(monkeypatch, capsys, "studies", "tiny", f"run_dir={tmp_path}/run", *SMALL)[0] == 0
    with open(tmp_path / "run/.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, _, err = call(monkeypatch, capsys, "studies", "tiny", f"run_dir={tmp_path}/run", *SMALL)
    assert code == 1 and "another process is working" in err


def test_judge_prints_its_details(monkeypatch, capsys):
    text = "Small left pleural effusion."
    code, out, _ = call(monkeypatch, capsys, "judge", "--reference", text, "--report", text)
    row = json.loads(out)
    assert code == 0 and row["judge"] == "finding_f1" and row["score"] == 1.0 and row["details"]
    code, out, err = call(monkeypatch, capsys, "judge", "--reference", " ", "--report", text)
    assert code == 1 and json.loads(out)["score"] is None and "abstained: the reference is empty" in err


def test_judges_and_recipes_are_listed(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code, out, _ = call(monkeypatch, capsys, "judges")
    assert code == 0 and all(j in out for j in ("bleu4", "rouge_l", "chexpert_rule_f1", "finding_f1"))
    code, out, _ = call(monkeypatch, capsys, "recipes")
    assert code == 0 and {"tiny", "demo", "iu_xray_smoke"} <= {line.split()[0] for line in out.splitlines()}


def test_check_finds_what_would_go_wrong(monkeypatch, capsys, tmp_path):
    rows = [{"study_id": f"s{i}", "patient_id": "p", "images": ["x.png"], "findings": "Heart."} for i in range(4)]
    for row, split in zip(rows, ("train", "test", "train", "test"), strict=True):
        row["split"] = split
    (tmp_path / "studies.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    code, out, err = call(
        monkeypatch, capsys, "check", "tiny", "studies.source=jsonl", f"studies.root={tmp_path}", "studies.n=null"
    )
    assert code == 1 and "problems found" in err
    for needle in ("studies.jsonl:5: invalid JSON", "patient p is in two splits", "image 1 is missing"):
        assert needle in out
    code, out, _ = call(monkeypatch, capsys, "check", "tiny", f"run_dir={tmp_path / 'new'}")
    assert code == 0 and "PROBLEM" not in out and not (tmp_path / "new").exists()
