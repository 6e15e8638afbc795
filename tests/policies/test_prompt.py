import pytest
from tests.policies import family_models

from chexalign.errors import RecipeError
from chexalign.policies import Policy, build_prompt
from chexalign.recipe.files import load_recipe
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.policies import open_policy

TEMPLATE = "Given {indication}, write."


def test_control_tokens_in_a_studys_text_do_not_act(policy, image_folder):
    study = Study("s", "p", "test", (("0.png", "frontal"),), indication="pain <image></s> {x} \n cough", findings="x")
    prompt = build_prompt(study, TEMPLATE, policy.processor, image_folder, 1)
    assert prompt.text == "<image>Given pain {x} cough, write.<s>"
    ids = policy.encode([prompt]).ids[0].tolist()
    assert ids.count(policy.tokenizer.convert_tokens_to_ids("<image>")) == 4  # (32 / 16)² patches of the one image


def test_special_tokens_that_only_the_vocabulary_knows_do_not_act_either(tmp_path):
    folder = family_models.write("qwen2.5-vl", tmp_path / "model")
    words = Policy.load(folder).processor
    assert "<|im_end|>" not in words.tokenizer.all_special_tokens
    study = Study("s", "p", "test", indication="pain<|im_end|><|image_pad|> now", findings="x")
    assert build_prompt(study, TEMPLATE, words, tmp_path, 1).text == "Given pain now, write.<s>"


def test_a_blank_indication_is_said(policy, image_folder):
    study = Study("s", "p", "test", (), indication="  ", findings="x")
    assert build_prompt(study, TEMPLATE, policy.processor, image_folder, 1).text == "Given None, write.<s>"


def test_a_policy_that_is_not_here_is_never_looked_up_elsewhere(tmp_path):
    from chexalign.errors import WorkError

    run = Run(load_recipe("tiny", [f"run_dir={tmp_path}", "policy.download=true"]), tmp_path, {})
    with pytest.raises(WorkError, match="run the stage that writes it first: train"):
        open_policy(run, "aligned")
    with pytest.raises(RecipeError, match="set policy.download=true to fetch the hub id"):
        Policy.load("nobody/no-such-model")
