"""The published wordings: every entry loads, is found by its model's names, and is what the model is asked."""

import json
import re
import string
from pathlib import Path

import pytest
from tests.policies import family_models

from chexalign import progress
from chexalign.errors import RecipeError
from chexalign.policies import Policy, build_prompt
from chexalign.policies.checkpoints.processors import load_processor
from chexalign.policies.model_of_recipe import load_model
from chexalign.policies.presets import DEFAULT, preset_for, presets, wording
from chexalign.policies.prompt import messages
from chexalign.recipe.files import load_recipe
from chexalign.recipe.policy import PolicySection
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.run.policies import prompts_for
from chexalign.stages.check_model import check_model


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("StanfordAIMI/CheXagent-2-3b", "chexagent-2"),
        ("/data/models/CheXagent-2-3b", "chexagent-2"),
        ("CheXagentForCausalLM", "chexagent-2"),
        ("CheXagent2ForConditionalGeneration", "chexagent-2"),
        ("StanfordAIMI/CheXagent-2-3b-srrg-findings", "chexagent-2-srrg-findings"),
        ("StanfordAIMI/CheXagent-2-3b-srrg-impression", "chexagent-2-srrg-impression"),
        ("chaoyinshe/llava-med-v1.5-mistral-7b-hf", "llava-med-1.5"),
        ("google/medgemma-4b-pt", "medgemma-pt"),
        ("google/medgemma-1.5-4b-it", "medgemma-it"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2.5-vl"),
        ("Qwen2_5_VLForConditionalGeneration", "qwen2.5-vl"),
        ("Qwen/Qwen3-VL-4B-Instruct", "qwen3-vl"),
    ],
)
def test_a_model_finds_its_preset(model, name):
    assert preset_for(model).name == name


@pytest.mark.parametrize("model", ["tiny", "StanfordAIMI/CheXagent-8b", "Qwen/Qwen3-8B", "llava-hf/llava-1.5-7b-hf"])
def test_an_unknown_model_has_none(model):
    assert preset_for(model) is None


@pytest.mark.parametrize("preset", presets(), ids=lambda p: p.name)
def test_every_preset_is_whole(preset):
    def fields(template):
        return {field for _, field, _, _ in string.Formatter().parse(template or "") if field}

    assert preset.match and all(re.compile(m) for m in preset.match)
    assert preset.max_images >= 1 and preset.source and preset.notes
    assert preset.findings or preset.impression or preset.max_pixels
    assert not fields(preset.findings) and not fields(preset.system)
    assert preset.findings_with_indication is None or fields(preset.findings_with_indication) == {"indication"}
    assert fields(preset.impression) <= {"findings"}


def test_chexagent_wordings_are_the_published_ones():
    preset = preset_for("StanfordAIMI/CheXagent-2-3b")
    assert preset.findings_with_indication.format(indication="Cough") == (
        'Given the indication: "Cough", write a structured findings section for the CXR.'
    )
    assert preset.impression.format(findings="Clear lungs.") == "Summarize the following Findings: Clear lungs."


# ---- what a model is asked


IMAGES = (("a.png", "frontal"), ("b.png", "lateral"))
COUGH = Study("s", "p", "test", IMAGES, indication="Cough", findings="Clear lungs.")
SILENT = Study("s", "p", "test", IMAGES, findings="x")


def told(study, asked, most=2):
    """The turns in short: images as `*`."""
    turns = messages(study, asked, most)
    return [(t["role"], "".join("*" if c["type"] == "image" else c["text"] for c in t["content"])) for t in turns]


def test_a_preset_is_used_with_and_without_an_indication():
    asked = wording("StanfordAIMI/CheXagent-2-3b")
    assert told(COUGH, asked) == [
        ("user", '**Given the indication: "Cough", write a structured findings section for the CXR.')
    ]
    assert told(SILENT, asked) == [
        ("user", '**Given the indication: "None", write a structured findings section for the CXR.')
    ]


def test_system_turn_image_rule_and_place_of_the_image():
    asked = wording("google/medgemma-4b-it")
    question = "Can you describe the key findings in this chest X-ray?"
    assert told(COUGH, asked) == [("system", asked.system), ("user", f"Cough\n{question}*")]
    assert told(SILENT, asked)[1] == ("user", f"{question}*")
    assert told(SILENT, asked, most=0)[1] == ("user", question)
    assert told(SILENT, wording("google/medgemma-4b-it", system="Be brief."))[0] == ("system", "Be brief.")


def test_an_own_prompt_leaves_the_published_wording_aside():
    asked = wording("google/medgemma-4b-it", "{indication} / {comparison} / {findings}")
    assert told(COUGH, asked) == [("user", "**Cough / None / Clear lungs.")]
    assert wording("google/medgemma-4b-pt", "Write.").chat is False


@pytest.mark.parametrize("model", ["tiny", "nobody/some-model", "Qwen/Qwen3-VL-4B-Instruct"])
def test_the_default_wording(model):
    assert told(COUGH, wording(model)) == [("user", f"**{DEFAULT}")]


def test_a_model_that_only_writes_impressions_needs_a_prompt():
    with pytest.raises(RecipeError, match="no findings wording is published for chexagent-2-srrg-impression"):
        wording("StanfordAIMI/CheXagent-2-3b-srrg-impression")


def test_a_folder_is_known_by_what_it_is_not_by_where_it_lies(tmp_path):
    folder = tmp_path / "medgemma-project" / "llama"
    folder.mkdir(parents=True)
    assert preset_for(str(folder)) is None
    (folder / "config.json").write_text(json.dumps({"architectures": ["CheXagentForCausalLM"]}))
    assert preset_for(str(folder)).name == "chexagent-2"
    cached = tmp_path / "models--google--medgemma-4b-pt" / "snapshots" / "0a1b"
    cached.mkdir(parents=True)
    assert preset_for(str(cached)).name == "medgemma-pt"
    (cached / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x/CheXagent-2-3b"}))
    assert preset_for(str(cached)).name == "chexagent-2"


def test_a_broken_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RecipeError, match="config.json is not JSON"):
        wording(str(tmp_path))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return family_models.write("gemma3", tmp_path_factory.mktemp("gemma") / "medgemma-4b-pt")


def test_medgemma_pt_is_no_chat(gemma, image_folder):
    policy, asked = Policy.load(gemma), wording(str(gemma))
    study = Study("s", "p", "test", (("0.png", "frontal"), ("1.png", "lateral")), indication="Cough", findings="x")
    prompt = build_prompt(study, asked, policy.processor, image_folder, 2)
    assert (prompt.text, prompt.images) == ("<start_of_image> findings:", ("0.png",))
    ids = policy.encode([prompt]).ids[0].tolist()
    assert ids.count(policy.tokenizer.convert_tokens_to_ids("<image_soft_token>")) == 4
    assert policy.text(policy.tokenizer(" findings:")["input_ids"]) == "findings:"


def test_the_wording_and_the_image_rule_are_said_once(gemma, image_folder, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    progress.say_once.cache_clear()
    settings = [f"run_dir={tmp_path}", f"policy.model={gemma}", "warmup=null", "studies.max_images=2"]
    run = Run(load_recipe("tiny", settings), tmp_path, {})
    policy = Policy.load(gemma)
    for _ in range(2):
        prompts = prompts_for(run, policy, [COUGH, SILENT])
    assert [p.images for p in prompts] == [("a.png",), ("a.png",)]
    assert len(lines) == 2 and "medgemma-pt" in lines[0] and "1 per study" in lines[1]
    said = [line for fine, line in check_model(run.recipe, [SILENT, COUGH], tmp_path) if fine]
    assert "prompt, medgemma-pt wording: ' findings:'" in said[0]
    assert "'<start_of_image> findings:' with 1 image(s)" in said[1]


def test_a_prompt_that_holds_what_is_to_be_written_is_a_finding_of_check():
    recipe = load_recipe("tiny", ["policy.prompt='Summarise: {findings}'"])
    fine, line = next(check_model(recipe, [COUGH], Path()))
    assert not fine and "holds the findings" in line


def test_the_pixel_budget_of_qwen_is_lowered_and_saved(tmp_path):
    folder = family_models.write("qwen2.5-vl", tmp_path / "model")
    file = folder / "processor_config.json"
    file.write_text(re.sub(r'"longest_edge": \d+', '"longest_edge": 12845056', file.read_text()))
    policy = load_model(PolicySection(model=str(folder)))
    assert dict(policy.processor.image_processor.size)["longest_edge"] == 451_584
    policy.save(tmp_path / "saved")
    again = load_model(PolicySection(model=str(tmp_path / "saved"), max_pixels=3136))
    assert dict(again.processor.image_processor.size)["longest_edge"] == 3136
    kept = load_processor(tmp_path / "saved", policy.model.config, True)
    assert dict(kept.image_processor.size)["longest_edge"] == 451_584


def test_a_pixel_budget_for_images_of_one_size_is_refused(gemma):
    with pytest.raises(RecipeError, match="policy.max_pixels: the images of .* have one fixed size"):
        load_model(PolicySection(model=str(gemma), max_pixels=1000))
