"""The maps are transformers' own attention, laid on the grid; a model without a grid is refused by name."""

import pytest
import torch
from tests.policies import family_models

from chexalign.errors import WorkError
from chexalign.policies import Policy, Prompt
from chexalign.policies.attention import NoMap, image_attention

COMPLETIONS = [(5, 9, 12, 2), (7, 2), (8, 6, 4, 10, 11, 2)]


@pytest.fixture(scope="module")
def tiny(tiny_folder):
    return Policy.load(tiny_folder)


def own_maps(policy, prompt, tokens, layers):
    """By transformers' own output_attentions: one prompt, nothing padded, nothing cached."""
    item = policy.encode([prompt])
    ids = torch.cat([item.ids, torch.tensor([tokens])], dim=1)
    policy.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = policy.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=item.extra["pixel_values"],
            output_attentions=True, use_cache=False,
        )  # fmt: skip
    policy.model.set_attn_implementation("sdpa")
    weights = torch.stack([out.attentions[k][0] for k in layers]).mean((0, 1))  # (length, length)
    start, where = item.ids.shape[1] - 1, item.ids[0] == policy.model.config.image_token_id
    return weights[start : start + len(tokens), : item.ids.shape[1]][:, where]


@pytest.mark.parametrize("layers", [None, (1,)])
@pytest.mark.parametrize("reuse", [False, True])
def test_equals_transformers_own_attentions(tiny, prompts, layers, reuse):
    shown = prompts[:3]
    tiny.reuse_features = reuse
    found = image_attention(tiny, shown, COMPLETIONS, layers)
    tiny.reuse_features = False
    for prompt, tokens, maps in zip(shown, COMPLETIONS, found, strict=True):
        assert [m.shape for m in maps] == [(len(tokens), 2, 2)] * len(prompt.images)
        own = own_maps(tiny, prompt, tokens, layers or range(2))
        torch.testing.assert_close(torch.cat([m.flatten(1) for m in maps], 1), own, atol=1e-5, rtol=1e-4)


def test_shares_are_shares_and_the_model_is_left_as_it_was(tiny, prompts):
    before = tiny.model.config.text_config._attn_implementation, tiny.model.config.vision_config._attn_implementation
    hooks = sum(len(m._forward_hooks) for m in tiny.model.modules())
    maps = image_attention(tiny, prompts[:2], COMPLETIONS[:2])
    for images in maps:
        total = sum(m.sum((1, 2)) for m in images)
        assert bool((total > 0).all()) and bool((total <= 1 + 1e-6).all())
    after = tiny.model.config.text_config._attn_implementation, tiny.model.config.vision_config._attn_implementation
    assert before == after == ("sdpa", "sdpa") and hooks == sum(len(m._forward_hooks) for m in tiny.model.modules())


@pytest.mark.parametrize("name", ["llava-llama", "llava-phi", "gemma3", "qwen2.5-vl", "qwen3-vl"])
def test_families_with_a_known_grid(name, tmp_path, image_folder):
    policy = Policy.load(family_models.write(name, tmp_path / name))
    text = policy.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "findings"}]}], tokenize=False
    )
    prompt = Prompt(text, ("0.png",), image_folder)
    (maps,) = image_attention(policy, [prompt], [(5, 9, 2)])
    assert len(maps) == 1 and maps[0].shape[0] == 3 and bool((maps[0].sum((1, 2)) <= 1 + 1e-6).all())
    tokens = int((policy.encode([prompt]).ids == policy.model.config.image_token_id).sum())
    assert maps[0][0].numel() == tokens and maps[0].isfinite().all()


def test_a_report_with_a_placeholder_is_refused(tiny, prompts):
    with pytest.raises(NoMap, match="stands for an image"):
        image_attention(tiny, prompts[:1], [(5, tiny.model.config.image_token_id, 2)])


def test_a_model_without_a_known_grid_is_named(tmp_path, image_folder):
    policy = Policy.load(family_models.write("idefics3", tmp_path / "idefics3"))
    text = policy.processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)
    with pytest.raises(NoMap, match="Idefics3Model: how its image tokens lie"):
        image_attention(policy, [Prompt(text, ("0.png",), image_folder)], [(5, 2)])
    assert issubclass(NoMap, WorkError)
