"""Every forward pass of a 16-bit run is in its type: algorithm × type × full or LoRA, from reports to the aligned policy."""

import itertools

import pytest
import torch
from tests.policies import family_models
from tests.policies.reports import recipe_for, write_reports
from torch import nn

from chexalign.policies import Prompt
from chexalign.policies.trainable import make_trainable
from chexalign.recipe.policy import Lora
from chexalign.run.policies import open_for_training
from chexalign.stages.runner import run_stages

ROAD = ["studies", "sample", "score", "pairs", "train"]
# GRPO everywhere, the others where it went wrong: LoRA in 16 bits
CELLS = list(itertools.product(("grpo",), ("llava-llama", "qwen2.5-vl"), ("float32", "bfloat16"), (False, True)))
CELLS += [
    (name, "llava-llama", "bfloat16", True) for name in ("orapo", "valor", "online_dpo", "online_kto", "dpo", "kto")
]
CELLS += [("dpo", "qwen2.5-vl", "bfloat16", False)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: family_models.write(name, folder / name) for name in ("llava-llama", "qwen2.5-vl")}


@pytest.fixture(scope="module")
def reports(tmp_path_factory, image_folder):
    return write_reports(tmp_path_factory.mktemp("reports") / "r", image_folder)


@pytest.mark.parametrize(("algorithm", "model", "dtype", "lora"), CELLS)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_the_road_to_the_aligned_policy(models, reports, tmp_path, algorithm, model, dtype, lora):
    more = ["train.algorithm={type: valor, visual: rouge_l}"] if algorithm == "valor" else []
    recipe = recipe_for(models[model], reports, tmp_path / "run", algorithm, dtype, lora, *more)
    run = run_stages(recipe, ROAD)
    assert run.path("policy/config.json").is_file()


@pytest.mark.parametrize("lora", [None, Lora(r=2)])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_sampling_and_scoring_compute_in_the_same_type(models, reports, tmp_path, lora):
    """A head that is asked outside the context would see fp32 hidden states: the types of all its inputs are seen here."""
    run = run_stages(
        recipe_for(models["llava-llama"], reports, tmp_path / "run", "dpo", "bfloat16", False), ["studies"]
    )
    policy = open_for_training(run)
    make_trainable(policy, ("tower", "projector"), lora, 0)
    kinds = set()
    for layer in policy.model.modules():
        if isinstance(layer, nn.Linear) and not hasattr(layer, "lora_A"):
            layer.register_forward_hook(lambda _m, _i, output: kinds.add(output.dtype))
    policy.generate([Prompt("Findings:")], 1, 0.0, 3)
    assert kinds == {torch.bfloat16}
    kinds.clear()
    policy.token_logps([Prompt("Findings:")], [[[5, 6]]])
    assert kinds == {torch.bfloat16}
