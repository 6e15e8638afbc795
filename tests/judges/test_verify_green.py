"""verify_green without the weights: what it compares, on a small random model and a stand-in for the package's side."""

import json

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from chexalign.judges.prompted import verify_green
from chexalign.judges.prompted.verify_green import PAIRS, alone, compare, ours


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_folder):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("green") / "GREEN-radllama2-tiny"
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=4096,
    )  # fmt: skip
    LlamaForCausalLM(config).half().save_pretrained(folder)
    return str(folder)


def test_our_side_gives_prompts_and_ids(model):
    found = ours(model, PAIRS[:2], answers=False)
    assert found["dtype"] == "torch.float16"
    assert "Small left pleural effusion" in found["rows"][0]["prompt"] and found["rows"][0]["ids"]
    (weights, *_), names = alone(found, model), [row[0] for row in alone(found, model)]
    assert weights[1] and names == ["weights in half precision", "add_eos_token is known", "the prompts leave room"]


def test_every_difference_is_named():
    row = {"prompt": "p", "ids": [1, 2], "answer": "a", "score": 0.5}
    here = {"dtype": "torch.float16", "rows": [row, row]}
    there = {"dtype": "torch.float32", "rows": [row, {**row, "ids": [1], "score": None}]}
    found = {name: (holds, text) for name, holds, text in compare(here, there)}
    assert [found[k][0] for k in ("dtype", "prompt", "ids", "answer", "score")] == [False, True, False, True, False]
    assert found["ids"][1] == "1 of 2 pairs; first difference in pair 2"


def test_the_command_reads_pairs_and_says_what_differs(model, tmp_path, capsys):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"reference": "Clear lungs.", "report": "Edema."}) + "\n")
    code = verify_green.main(["--model", model, "--pairs", str(pairs)])
    out = capsys.readouterr().out
    assert "ok   weights in half precision: torch.float16" in out
    assert code == (0 if "DIFFERS" not in out else 1)


def test_a_reference_that_cannot_run_is_one_line(model, capsys, monkeypatch):
    monkeypatch.setattr(verify_green, "ours", lambda *a, **k: {"dtype": "torch.float16", "rows": [{"ids": [1]}]})
    assert verify_green.main(["--model", model, "--ref-python", "/bin/false"]) == 1
    assert "the reference failed" in capsys.readouterr().err
