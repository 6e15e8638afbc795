"""Stored features: on the disk by content and tower, shared by policies and processes, never beyond their limit."""

import os
from pathlib import Path

import pytest
import torch
from tests.policies import family_models
from tests.policies.test_families import COMPLETIONS, prompt

from chexalign.policies import Policy
from chexalign.policies.forward import vision_cache
from chexalign.policies.forward.tower_features import FEATURE
from chexalign.policies.forward.unwrap import core_model
from chexalign.policies.forward.vision_cache import fingerprint

FAMILIES = ["llava-llama", "qwen2.5-vl", "qwen3-vl", "gemma3", "idefics3", "smolvlm"]


@pytest.fixture
def counted(monkeypatch):
    """Counts tower passes of a policy."""

    def watch(policy):
        calls = []
        policy.part("tower").register_forward_hook(lambda *_: calls.append(1))
        return calls

    return watch


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_second_policy_reads_what_the_first_computed(name, tmp_path, image_folder, counted):
    folder, features = family_models.write(name, tmp_path / "model"), tmp_path / "features"
    logps, calls = [], []
    for store in (False, True, True):
        policy = Policy.load(folder)
        if store:
            policy.keep_features(features, 1.0)
        calls.append(counted(policy))
        prompts = [prompt(policy, image_folder, images, 2) for images in ((0, 1), (2,))]
        logps.append([x for group in policy.token_logps(prompts, [COMPLETIONS] * 2) for x in group])
    assert len(calls[0]) > 0 and len(calls[1]) > 0 and not calls[2]
    for found in logps[1:]:
        assert max(float((a - b).abs().max()) for a, b in zip(logps[0], found, strict=True)) < 1e-5


def stored(policy, features, gib=1.0):
    policy.keep_features(features, gib)
    return policy.encode([policy.prompt_of_test])


@pytest.fixture
def two(tiny_folder, prompts):
    """Two policies of one checkpoint, with a prompt."""
    policies = [Policy.load(tiny_folder) for _ in range(2)]
    for policy in policies:
        policy.prompt_of_test = prompts[0]
    return policies


def held(policy) -> int:
    """Feature tensors that a policy holds in memory."""
    return sum(k.startswith(FEATURE) for item, _ in policy.encoder._encoded.values() for k in item)


def test_features_are_mapped_from_the_disk_and_neither_memory_nor_open_files_grow_with_images(two, prompts, tmp_path):
    """An open file per image would end a run at the usual limit of 1,024."""
    policy, passes = two[0], []
    policy.part("tower").register_forward_hook(lambda *_: passes.append(1))
    policy.keep_features(tmp_path, 1.0)
    before = len(os.listdir("/proc/self/fd"))
    expected = [policy.encode([p]).extra[f"{FEATURE}0"] for p in prompts]
    n = len(passes)
    again = [policy.encode([p]).extra[f"{FEATURE}0"] for p in prompts]
    assert n == len(passes) > 0 and all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))
    assert held(policy) == 0 and len(os.listdir("/proc/self/fd")) == before
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    kept = policy.encoder.encode_one(core_model(policy.model), prompts[0], True)  # held by the caller alone
    assert str(tmp_path) in Path("/proc/self/maps").read_text() and f"{FEATURE}0" in kept


def test_a_stored_file_that_is_taken_away_is_computed_again(two, tmp_path):
    wanted = stored(two[0], tmp_path).extra[f"{FEATURE}0"]
    next(tmp_path.rglob("*.npy")).unlink()
    assert torch.equal(two[0].encode([two[0].prompt_of_test]).extra[f"{FEATURE}0"], wanted)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_another_layer_of_the_same_tower_has_features_of_its_own(two, tmp_path):
    core = two[1].model.model
    core.config.vision_feature_layer = 1
    a, b = (stored(p, tmp_path).extra[f"{FEATURE}0"] for p in two)
    assert float((a - b).abs().max()) > 1e-3


def test_another_tower_has_features_of_its_own(two, tmp_path):
    with torch.no_grad():
        two[1].part("tower").embeddings.position_embedding.weight.add_(0.1)
    assert fingerprint(two[0].part("tower")) != fingerprint(two[1].part("tower"))
    a, b = (stored(p, tmp_path).extra[f"{FEATURE}0"] for p in two)
    assert float((a - b).abs().max()) > 1e-3


def test_nothing_is_added_beyond_the_limit_and_it_is_said_once(two, tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(vision_cache, "say", lines.append)
    a, passes = stored(two[0], tmp_path, gib=1e-7), []
    assert not list(tmp_path.rglob("*.npy")) and held(two[0]) == 0  # nor kept in memory instead
    two[0].part("tower").register_forward_hook(lambda *_: passes.append(1))
    two[0].encode([two[0].prompt_of_test])
    assert passes and len(lines) == 1 and "policy.features_gib are full" in lines[0]
    assert torch.equal(a.extra[f"{FEATURE}0"], stored(two[1], tmp_path / "large").extra[f"{FEATURE}0"])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_file_cut_short_is_computed_again(two, tmp_path, share):
    wanted = stored(two[0], tmp_path).extra[f"{FEATURE}0"].clone()
    file = next(tmp_path.rglob("*.npy"))
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole[: int(len(whole) * share)])
    assert torch.equal(stored(two[1], tmp_path).extra[f"{FEATURE}0"], wanted)
    assert file.read_bytes() == whole


def test_sixteen_bit_features_come_back_as_they_were(tiny_folder, prompts, tmp_path):
    found = []
    for folder in (None, tmp_path, tmp_path):
        policy = Policy.load(tiny_folder, dtype="bfloat16")
        policy.keep_features(folder or tmp_path, 1.0 if folder else 0.0)
        found.append(policy.encode(prompts[:1]).extra[f"{FEATURE}0"])
    assert found[0].dtype == torch.bfloat16 and all(torch.equal(found[0], f) for f in found[1:])


@pytest.mark.parametrize("name", ["qwen2.5-vl", "qwen3-vl"])
def test_a_merger_that_learns_leaves_the_stored_features_valid(name, tmp_path):
    """Qwen-VL's projector lies inside its tower: every arm of a sweep ran the tower again when it moved."""
    tower = Policy.load(family_models.write(name, tmp_path / "model")).part("tower")
    before = fingerprint(tower)
    with torch.no_grad():
        next(tower.merger.parameters()).add_(1.0)
    assert fingerprint(tower) == before
    with torch.no_grad():
        next(tower.blocks.parameters()).add_(1.0)
    assert fingerprint(tower) != before


def test_a_bf16_run_keeps_one_copy_in_bf16_that_sampling_and_training_share(tiny_folder, prompts, tmp_path):
    """Sampling loads bf16 weights, training fp32 ones of the same checkpoint: each kept features of its own."""
    found, passes = [], []
    for dtype in ("bfloat16", "float32", "float32"):
        policy = Policy.load(tiny_folder, dtype=dtype)
        policy.keep_features(tmp_path, 1.0, "bfloat16")
        policy.part("tower").register_forward_hook(lambda *_: passes.append(1))
        found.append(policy.encode(prompts[:1]).extra[f"{FEATURE}0"])
    (file,) = tmp_path.rglob("*.npy")
    assert len(passes) == 1 and file.name.endswith(".0.bfloat16.npy")
    assert found[1].dtype == torch.float32 and torch.equal(found[0].float(), found[1])
    assert 0 <= file.stat().st_size - 2 * found[0].numel() <= 128  # two bytes a number, and numpy's header


def test_what_is_computed_is_what_comes_back(tiny_folder, prompts, tmp_path):
    """fp32 weights that store in bf16: the first use is rounded too."""
    found = []
    for _ in range(2):
        policy = Policy.load(tiny_folder)
        policy.keep_features(tmp_path, 1.0, "bfloat16")
        found.append(policy.encode(prompts[:1]).extra[f"{FEATURE}0"])
    assert found[0].dtype == torch.float32 and torch.equal(found[0], found[1])
