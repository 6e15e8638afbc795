"""A report to learn from is tokenised as the model's own chat template writes the assistant's turn after its prompt."""

import dataclasses

import pytest
from tests.policies import family_models

from chexalign.policies import Policy, build_prompt
from chexalign.policies.presets import presets
from chexalign.policies.turn import assistant_turn
from chexalign.records import Study

REPORT = "The heart is normal in size."
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% for p in m.content %}{{ p.text | trim }}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}: {% for p in m.content %}{{ p.text }}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAVA = (
    "{% for m in messages %}{{ m.role.upper() }}: {% for p in m.content %}{{ p.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SHAPES = {  # template, special tokens, what stands before, what ends the turn (None: the tokenizer's end)
    "qwen": (QWEN, ("<|im_start|>", "<|im_end|>"), "", "<|im_end|>"),
    "gemma": (GEMMA, ("<start_of_turn>", "<end_of_turn>"), "", "<end_of_turn>"),
    "smolvlm": (SMOLVLM, ("<|im_start|>", "<end_of_utterance>"), " ", "<end_of_utterance>"),
    "llava": (LLAVA, (), " ", None),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return family_models.write("llava-llama", tmp_path_factory.mktemp("turn") / "model")


def shaped(folder, name) -> Policy:
    policy, (template, special, *_) = Policy.load(folder), SHAPES[name]
    policy.tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    policy.processor.chat_template = template
    return policy


@pytest.mark.parametrize("name", SHAPES)
def test_prompt_and_report_are_the_template_s_tokens(folder, name):
    policy, (_, _, before, end) = shaped(folder, name), SHAPES[name]
    study = Study("s", "p", "train", findings="x")
    prompt = build_prompt(study, "Write the findings.", policy.processor, folder, 0)
    ours = policy.tokenizer(prompt.text, add_special_tokens=False)["input_ids"] + list(policy.completion_ids(REPORT))
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("user", "Write the findings."), ("assistant", REPORT))
    ]
    whole = policy.processor.apply_chat_template(turns, tokenize=False)
    theirs = policy.tokenizer(whole.rstrip(), add_special_tokens=False)["input_ids"]
    assert ours == theirs + ([] if end else [policy.tokenizer.eos_token_id])
    assert policy.tokenizer.decode([policy.end_id]) == (end or "</s>") and policy.end_id in policy.stop_ids
    assert policy.turn.before == before
    assert policy.text(policy.completion_ids(REPORT)) == REPORT


@pytest.mark.parametrize("preset", presets(), ids=lambda p: p.name)
@pytest.mark.parametrize("name", SHAPES)
def test_it_holds_for_every_preset(folder, name, preset):
    """Whatever a preset asks, what it is answered continues its prompt as the template would; without a chat, plainly."""
    policy = shaped(folder, name)
    policy.chat = preset.chat
    asked = dataclasses.replace(
        preset, system=None, findings=preset.findings or "Write.", findings_with_indication=None
    )
    prompt = build_prompt(Study("s", "p", "train", findings="x"), asked, policy.processor, folder, 0)
    ids = policy.completion_ids(REPORT)
    if not preset.chat:
        assert ids == (*policy.tokenizer(REPORT, add_special_tokens=False)["input_ids"], policy.tokenizer.eos_token_id)
        return
    whole = policy.tokenizer(prompt.text + policy.turn.before + REPORT + policy.turn.after, add_special_tokens=False)
    given = policy.tokenizer(prompt.text, add_special_tokens=False)["input_ids"] + list(ids)
    assert given == whole["input_ids"] + ([] if policy.turn.end_id else [policy.tokenizer.eos_token_id])


def test_without_a_template_the_tokenizer_s_end_is_taken(folder, policy):
    policy.processor.chat_template = None
    assert assistant_turn(policy.processor).end_id is None and policy.end_id == policy.tokenizer.eos_token_id


def test_the_built_in_policy_learns_what_it_always_did(policy):
    words = policy.tokenizer(REPORT, add_special_tokens=False)["input_ids"]
    assert policy.completion_ids(REPORT) == (*words, policy.tokenizer.eos_token_id)
