"""Every family, opened from a folder with its own processor: the shared prefix equals the plain forward.

Tiny random checkpoints (family_models.py); studies of one and two images of different shapes, prompts of different
lengths. CheXagent-2 has its own tests.
"""

import json
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from tests.policies import family_models
from tests.policies.family_models import FAMILIES
from tests.policies.test_shared_prefix import assert_same_gradients, gradients, plain_logps

from chexalign.errors import RecipeError
from chexalign.policies import Policy, build_prompt
from chexalign.policies.forward import unshared
from chexalign.policies.forward.head import check_head
from chexalign.policies.trainable import make_trainable
from chexalign.recipe.policy import Lora
from chexalign.records import Study

SEEING = [n for n in FAMILIES if n not in ("llama", "qwen2", "qwen3", "phi3", "gemma2", "cohere", "granite")]
COMPLETIONS = [(5, 9, 12, 2), (7, 2), tuple(range(4, 40)) + (2,)]  # the last is longer than a sliding window


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """name → (policy, prompts of one, two and one images), opened once."""
    root = tmp_path_factory.mktemp("families")
    for i, shape in enumerate([(60, 50), (90, 40), (50, 100)]):
        pixels = np.random.default_rng(i).integers(0, 255, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")

    @cache
    def open_family(name):
        policy = Policy.load(family_models.write(name, root / name))
        shown = (((0,), 3), ((1, 2), 0), ((2,), 9))
        return policy, [prompt(policy, root, images if name in SEEING else (), words) for images, words in shown]

    return open_family


def prompt(policy, root, images, words):
    paths = tuple((f"{i}.png", "frontal") for i in images)
    study = Study("s", "p", "test", paths, indication="flu " * words, findings="x")
    return build_prompt(study, "Findings given {indication}:", policy.processor, root, 2)


def plain_of(policy, prompts, completions):
    """Prompt and completion through the model's own forward, one at a time."""
    prefixes = [policy.encode([p]) for p in prompts]
    return [[plain_logps(policy.model, x, c) for c in completions] for x in prefixes]


def weighted(groups):
    return sum((i + 1) * (j + 2) * row.sum() for i, group in enumerate(groups) for j, row in enumerate(group))


def furthest(groups, others):
    return max(float((a - b).detach().abs().max()) for g, o in zip(groups, others, strict=True)
               for a, b in zip(g, o, strict=True))  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_shared_equals_plain(opened, name):
    policy, prompts = opened(name)
    expected = plain_of(policy, prompts, COMPLETIONS)
    shared = policy.token_logps(prompts, [COMPLETIONS] * 3)  # one left-padded batch
    assert furthest(shared, expected) < 1e-5
    assert_same_gradients(gradients(policy.model, weighted(shared)), gradients(policy.model, weighted(expected)))
    alone = policy.token_logps(prompts[1:2], [COMPLETIONS])
    assert furthest(alone, expected[1:2]) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_training_mode_and_stored_features_change_nothing(opened, name):
    policy, prompts = opened(name)
    expected = plain_of(policy, prompts, COMPLETIONS)
    policy.model.train()
    policy.scorer.checkpointing = policy.reuse_features = True
    try:
        shared = policy.token_logps(prompts, [COMPLETIONS] * 3)
        assert furthest(shared, expected) < 1e-5
        found = gradients(policy.model, weighted(shared))
    finally:
        policy.model.eval()
        policy.scorer.checkpointing = policy.reuse_features = False
    wanted = gradients(policy.model, weighted(expected))
    # no gradient reaches a tower whose features were stored
    assert_same_gradients(found, {n: g for n, g in wanted.items() if n in found})
    assert all("vis" in n for n in wanted.keys() - found.keys())


@pytest.mark.parametrize("name", SEEING)
@torch.no_grad()
def test_studies_without_images_beside_others_and_alone(opened, name):
    """Also after a batch with images, of which Qwen-VL keeps the positions; prompts of different lengths; one token."""
    policy, seen = opened(name)
    root = seen[0].root
    prompts = [prompt(policy, root, (), 3), *seen[:2], prompt(policy, root, (), 0)]
    completions = [(2,), *COMPLETIONS[:2]]
    expected = plain_of(policy, prompts, completions)
    for reuse in (False, True):
        policy.reuse_features = reuse
        for rows in ([0, 1, 2, 3], [1, 2], [0, 3]):
            found = policy.token_logps([prompts[i] for i in rows], [completions] * len(rows))
            assert furthest(found, [expected[i] for i in rows]) < 1e-5
    policy.reuse_features = False


@pytest.mark.parametrize("name", FAMILIES)
def test_the_comparison_can_fail(opened, name):
    """Another image, another order of images or another prompt length moves these models' log-probs far beyond 1e-5."""
    policy, prompts = opened(name)
    with torch.no_grad():
        one, two, other = policy.token_logps(prompts, [COMPLETIONS[:1]] * 3)
        assert furthest([one], [other]) > 1e-2
        if name in SEEING:
            swapped = type(prompts[1])(prompts[1].text, prompts[1].images[::-1], prompts[1].root)
            assert furthest(policy.token_logps([swapped], [COMPLETIONS[:1]]), [two]) > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_sampling(opened, name):
    policy, prompts = opened(name)
    for p in prompts[:2]:
        x = policy.encode([p])
        theirs = policy.model.generate(
            input_ids=x.ids, attention_mask=x.mask, **x.extra, max_new_tokens=10, do_sample=False
        )[0, x.ids.shape[1] :].tolist()
        assert list(policy.generate([p], 1, 0.0, 10)[0][0].tokens) == theirs
    groups = policy.generate(prompts, 2, 1.0, 30, seed=1)
    with torch.no_grad():
        again = policy.token_logps(prompts, [[s.tokens for s in g] for g in groups])
    for group, rows in zip(groups, again, strict=True):
        for sampled, row in zip(group, rows, strict=True):
            assert sampled.logp == pytest.approx(float(row.sum()), abs=1e-4)


@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl"])
def test_a_saved_folder_opens_again_and_keeps_its_video_settings(opened, name, tmp_path):
    policy, prompts = opened(name)
    first, second = tmp_path / "first", tmp_path / "second"
    policy.save(first)
    settings = first / "processor_config.json"
    settings.write_text(
        settings.read_text().replace('"processor_class"', '"video_processor": {"fps": 3},\n"processor_class"')
    )
    again = Policy.load(first)
    again.save(second)
    assert '"fps": 3' in (second / "processor_config.json").read_text()
    assert type(again.processor).__name__ in (second / "processor_config.json").read_text()
    with torch.no_grad():
        assert furthest(*(p.token_logps(prompts, [COMPLETIONS] * 3) for p in (again, policy))) < 1e-6


@pytest.mark.parametrize(
    ("name", "kind"), [("qwen2.5-vl", "Qwen2VLImageProcessor"), ("gemma3", "Gemma3ImageProcessor")]
)
def test_a_folder_as_the_hub_has_it_opens(opened, name, kind, tmp_path):
    """There, the image settings are a file of their own, and name a class that wants torchvision."""
    policy, prompts = opened(name)
    folder = family_models.write(name, tmp_path / name)
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").unlink()
    images = {
        **settings["image_processor"],
        "image_processor_type": kind,
        "processor_class": settings["processor_class"],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    if extra := {k: v for k, v in settings.items() if k in ("image_seq_length", "processor_class")}:
        (folder / "processor_config.json").write_text(json.dumps(extra))
    with torch.no_grad():
        published = Policy.load(folder).token_logps(prompts, [COMPLETIONS] * 3)
        assert furthest(published, policy.token_logps(prompts, [COMPLETIONS] * 3)) < 1e-6


# ---- outside the families


@pytest.mark.parametrize("name", ["mamba", "recurrent_gemma"])
def test_a_recurrent_model_takes_the_plain_path_and_says_so_once(opened, name, monkeypatch):
    lines = []
    monkeypatch.setattr(unshared, "say", lines.append)
    monkeypatch.setattr(unshared, "_said", set())
    policy, prompts = opened(name)
    expected = plain_of(policy, prompts, COMPLETIONS)
    shared = policy.token_logps(prompts, [COMPLETIONS] * 3)
    assert furthest(shared, expected) < 1e-5
    assert_same_gradients(gradients(policy.model, weighted(shared)), gradients(policy.model, weighted(expected)))
    greedy = policy.generate(prompts[:1], 1, 0.0, 10)[0][0].tokens
    x = policy.encode(prompts[:1])
    theirs = policy.model.generate(
        input_ids=x.ids, attention_mask=x.mask, max_new_tokens=10, do_sample=False, use_cache=False
    )
    assert list(greedy) == theirs[0, x.ids.shape[1] :].tolist()
    assert len(lines) == 1 and type(policy.model).__name__ in lines[0]


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_a_decoder_built_otherwise_is_scored_right_and_refuses_what_is_not_known(opened, name):
    policy, prompts = opened(name)
    expected = plain_of(policy, prompts, COMPLETIONS)
    shared = policy.token_logps(prompts, [COMPLETIONS] * 3)
    assert furthest(shared, expected) < 1e-5
    assert_same_gradients(gradients(policy.model, weighted(shared)), gradients(policy.model, weighted(expected)))
    policy.scorer.checkpointing = True
    with pytest.raises(
        RecipeError, match="train.gradient_checkpointing: not known how to do it for .*; set it to false"
    ):
        policy.token_logps(prompts, [COMPLETIONS] * 3)
    policy.scorer.checkpointing = False
    with pytest.raises(RecipeError, match="train.lora: no linear layer is known in the decoder of .*; leave lora out"):
        make_trainable(policy, (), Lora(r=2), seed=0)


def test_logits_changed_in_an_unknown_way_are_refused(opened):
    policy, _ = opened("llama")
    handle = policy.model.register_forward_hook(
        lambda _module, _inputs, output: setattr(output, "logits", output.logits + 1)
    )
    try:
        with pytest.raises(RecipeError, match="LlamaForCausalLM changes its logits"):
            check_head(policy.model)
    finally:
        handle.remove()
    check_head(policy.model)


def test_an_encoder_decoder_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"is an encoder-decoder \(bart\)"):
        Policy.load(family_models.write("bart", tmp_path / "bart"))


def test_a_seeing_model_without_its_image_processor_is_refused(tmp_path):
    folder = family_models.write("llava-llama", tmp_path / "blind")
    (folder / "processor_config.json").unlink()
    with pytest.raises(RecipeError, match="image processor|preprocessor_config"):
        Policy.load(folder)
