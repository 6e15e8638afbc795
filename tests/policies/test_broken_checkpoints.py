"""Folders as people have them: what is absent, torn or unsupported is one line, from `Policy.load` and from `check`."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.policies import family_models
from tests.policies.reports import recipe_for, write_reports

from chexalign.errors import RecipeError, WorkError
from chexalign.policies import Policy, Prompt
from chexalign.records import Study
from chexalign.stages.check_model import check_model

STUDIES = [Study("s", "p", "train", (("0.png", "frontal"),), findings="Clear lungs.")]
WEIGHT = "model.language_model.layers.0.mlp.down_proj.weight"


def weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    found = load_file(file)
    change(
        found, next(name for name in found if name.endswith("layers.0.mlp.down_proj.weight") and "vision" not in name)
    )
    save_file(found, file, metadata={"format": "pt"})


def settings(folder: Path, file: str = "config.json", **changes) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def renamed(found, name) -> None:
    found[name.replace("down_proj", "down")] = found.pop(name)


def torn(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])


def template(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text)


BROKEN = {
    "absent": (lambda f: weights(f, lambda d, n: d.pop(n)), r"missing weights: .*0\.mlp\.down_proj\.weight"),
    "misnamed": (lambda f: weights(f, renamed), r"missing weights: .*down_proj.*without a place: .*mlp\.down\.weight"),
    "mismatched": (
        lambda f: weights(f, lambda d, n: d.update({n: d[n][:, :-1].contiguous()})),
        r"another shape: .*\(32, 63\) where \(32, 64\)",
    ),
    "torn": (torn, "SafetensorError"),
    "bitsandbytes": (
        lambda f: settings(f, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), "bitsandbytes"
    ),
    "awq": (
        lambda f: settings(f, quantization_config={"quant_method": "awq", "bits": 4, "group_size": 8, "zero_point": True}),
        "policy.model 'model': [A-Z]",
    ),
    "unknown type": (lambda f: settings(f, model_type="nosuch"), "nosuch"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "okenizer"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return family_models.write("llava-llama", tmp_path_factory.mktemp("whole") / "model")


def problems(recipe, root) -> str:
    return "\n".join(line for fine, line in check_model(recipe, STUDIES, root) if not fine)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_refused_in_one_line_and_found_by_check(whole, tmp_path, image_folder, name):
    broken, line = BROKEN[name]
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    broken(folder)
    with pytest.raises(RecipeError, match=line) as caught:
        Policy.load(folder)
    assert "\n" not in str(caught.value)
    recipe = recipe_for(folder, image_folder, tmp_path / "run", "dpo", "float32", False)
    assert str(caught.value) in problems(recipe, image_folder)


def test_check_reads_no_weights_and_finds_nothing_in_a_whole_one(whole, tmp_path, image_folder):
    recipe = recipe_for(whole, image_folder, tmp_path / "run", "dpo", "float32", False, "sample.max_new_tokens=64")
    lines = list(check_model(recipe, STUDIES, image_folder))
    assert all(fine for fine, _ in lines)
    assert any("weights of model: " in line and "each in its place" in line for _, line in lines)
    assert any("at most 1 images of 16 tokens" in line for _, line in lines)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x",
            "refuses it .no system",
        ),
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content[0].text }}<image>{% endfor %}",
            "leaves the system turn",
        ),
        ("{% for m in messages %}", "cannot write the prompt|refuses it"),
    ],
)
def test_a_template_that_refuses_or_drops_a_system_turn_is_said(whole, tmp_path, image_folder, text, line):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    template(folder, text)
    more = ["policy.prompt='Write:'", "policy.system='Be brief.'"]
    recipe = recipe_for(folder, image_folder, tmp_path / "run", "dpo", "float32", False, *more)
    assert pytest.importorskip("re").search(line, problems(recipe, image_folder))


def test_a_llava_of_before_processor_config_takes_its_patches_from_the_model(whole, tmp_path, image_folder):
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    file = folder / "processor_config.json"
    kept = json.loads(file.read_text())["image_processor"]
    (folder / "preprocessor_config.json").write_text(json.dumps(kept | {"processor_class": "LlavaProcessor"}))
    file.unlink()
    old, new = Policy.load(folder), Policy.load(whole)
    prompt = Prompt("<image>Write:", ("0.png",), image_folder)
    assert torch.equal(old.encode([prompt]).ids, new.encode([prompt]).ids)


def test_an_image_that_the_processor_refuses_is_named(tmp_path, image_folder):
    root = write_reports(tmp_path / "reports", image_folder)
    Image.new("L", (3000, 12)).save(root / "3.png")
    folder = family_models.write("qwen2.5-vl", tmp_path / "model")
    studies = [Study(f"s{i}", "p", "train", ((f"{i}.png", "frontal"),), findings="Clear.") for i in range(8)]
    recipe = recipe_for(folder, root, tmp_path / "run", "dpo", "float32", False)
    found = [line for fine, line in check_model(recipe, studies, root) if not fine]
    assert any(str(root / "3.png") in line and "refuses" in line for line in found)
    policy = Policy.load(folder)
    with pytest.raises(WorkError, match=r"3\.png: the model's processor refuses it"):
        policy.encode([Prompt("<|vision_start|><|image_pad|><|vision_end|>Write:", ("3.png",), root)])


def test_images_for_a_model_that_sees_none_are_refused(tmp_path, image_folder):
    policy = Policy.load(family_models.write("llama", tmp_path / "model"))
    with pytest.raises(RecipeError, match="studies.max_images=0"):
        policy.encode([Prompt("Write:", ("0.png",), image_folder)])
