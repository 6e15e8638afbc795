"""The published wordings: every entry loads, is found by its model's names, and can be filled in."""

import re
import string

import pytest

from chexalign.policies.presets import preset_for, presets


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
    assert preset.findings or preset.impression
    assert not fields(preset.findings) and not fields(preset.system)
    assert preset.findings_with_indication is None or fields(preset.findings_with_indication) == {"indication"}
    assert fields(preset.impression) <= {"findings"}


def test_chexagent_wordings_are_the_published_ones():
    preset = preset_for("StanfordAIMI/CheXagent-2-3b")
    assert preset.findings_with_indication.format(indication="Cough") == (
        'Given the indication: "Cough", write a structured findings section for the CXR.'
    )
    assert preset.impression.format(findings="Clear lungs.") == "Summarize the following Findings: Clear lungs."
