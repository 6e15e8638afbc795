"""Adapters with the module names of transformers 4, as ms-swift and LLaMA-Factory wrote them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.policies import family_models
from tests.policies.test_families import COMPLETIONS, prompt

from chexalign.policies import Policy
from chexalign.policies.checkpoints import adapter_names
from chexalign.policies.trainable import make_trainable
from chexalign.recipe.policy import Lora

TODAY = "base_model.model.model.language_model."
OLD = {
    "qwen2.5-vl": (
        "base_model.model.model.",
        r"^(model)(?=\.).*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$",
    ),
    "llava-llama": ("base_model.model.language_model.model.", r"^language_model\.model\..*_proj$"),
}  # family → prefix in the file, a pattern that chose the modules


@pytest.mark.parametrize("name", OLD)
@torch.no_grad()
def test_an_adapter_with_old_names_gives_the_same_logps_and_one_line_says_so(name, tmp_path, image_folder, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(adapter_names, "say_once", lines.append)
    before = Policy.load(family_models.write(name, tmp_path / "model"))
    prompts = [prompt(before, image_folder, (0,), 1)]
    base = torch.cat(before.token_logps(prompts, [COMPLETIONS])[0])
    make_trainable(before, ("tower", "projector"), Lora(r=4, alpha=8), seed=1)
    for weight_name, weight in before.model.named_parameters():
        if "lora_B" in weight_name:
            weight.normal_(0, 0.2)  # else the adapter adds nothing
    before.save(tmp_path / "adapter")
    file, config = (tmp_path / "adapter" / f for f in ("adapter_model.safetensors", "adapter_config.json"))
    today = Policy.load(tmp_path / "adapter")
    expected = torch.cat(today.token_logps(prompts, [COMPLETIONS])[0])
    assert not lines and float((expected - base).abs().max()) > 1e-2
    weights = load_file(file)
    assert all(key.startswith(TODAY) for key in weights)
    prefix, pattern = OLD[name]
    save_file({prefix + key.removeprefix(TODAY): w for key, w in weights.items()}, file)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": pattern}))
    found = torch.cat(Policy.load(tmp_path / "adapter").token_logps(prompts, [COMPLETIONS])[0])
    assert torch.equal(found, expected)
    assert len(lines) == 1 and "names of transformers 4" in lines[0]
