"""A run compares once, keeps the outcome in its folder, and says in one line where it takes the plain path."""

from types import SimpleNamespace

from chexalign.jsonl import read_json
from chexalign.records import Study
from chexalign.run import proof

STUDY = Study("s", "p", "train", (("0.png", "frontal"),), indication="", findings="The heart is normal.")


def a_run(folder):
    (folder / "studies.jsonl").touch()
    return SimpleNamespace(path=lambda name: folder / name, studies=lambda split: [STUDY], trunk=None)


def test_the_outcome_is_remembered_and_said(policy, tmp_path, monkeypatch):
    asked, lines, why = [], [], "it fails: ValueError: new"
    monkeypatch.setattr(proof, "disagreement", lambda *a, **_: asked.append(a) or why)
    monkeypatch.setattr(proof, "say", lines.append)
    for _ in range(2):
        policy.encoder.never_reuse = False
        proof.prove(a_run(tmp_path), policy, lambda studies: [s.study_id for s in studies])
        assert policy.encoder.never_reuse
    assert (
        len(asked) == 2
        and len(lines) == 2
        and "stored features and shared prompts are not used" in lines[0]
        and why in lines[0]
    )
    (kept,) = read_json(tmp_path / proof.FILE).values()
    assert kept == {
        "model": "LlavaForConditionalGeneration",
        "study_id": "s",
        "stored": why,
        "shared": why,
    }


def test_another_version_is_another_proof(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(proof, "disagreement", lambda *_, **__: None)
    proof.prove(a_run(tmp_path), policy, lambda studies: studies)
    monkeypatch.setattr("transformers.__version__", "9.9")
    proof.prove(a_run(tmp_path), policy, lambda studies: studies)
    assert len(read_json(tmp_path / proof.FILE)) == 2 and not policy.encoder.never_reuse
