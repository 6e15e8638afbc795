"""LoRA and DoRA: what learns, what the reference is, and folders that can be opened again."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.driver import OVERRIDES
from tests.policies.family_models import FAMILIES

from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_records
from chexalign.policies import Policy, Prompt
from chexalign.policies.trainable import make_trainable
from chexalign.recipe.files import load_recipe
from chexalign.recipe.policy import Lora
from chexalign.recipe.preference import Dpo, Sft
from chexalign.records import Pair
from chexalign.run.folder import Run
from chexalign.run.policies import open_policy
from chexalign.stages.train import align
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.preference.scoring_task import Example, ScoringTask

ALONE = ("tower", "projector")  # nothing but the adapter learns


def scores(policy, prompts, groups) -> torch.Tensor:
    return torch.cat([x for g in policy.token_logps(prompts, groups) for x in g])


def sampled(policy, prompts) -> list[Example]:
    groups = policy.generate(prompts, 2, 1.0, 12, seed=3)
    return [
        Example(p, tuple(s.tokens for s in g), tuple(s.logp for s in g)) for p, g in zip(prompts, groups, strict=True)
    ]


def train(policy, items, folder, algorithm=None, **changes) -> list[dict]:
    settings = LoopSettings(
        **{"steps": 4, "lr": 1e-2, "batch_size": 4, "micro_batch_size": 4, "seed": 0, "schedule": "constant", **changes}
    )
    Trainer(
        ScoringTask(policy, algorithm or Dpo(beta=0.5)),
        items,
        settings,
        LoopFiles(folder / "work", folder / "log.jsonl"),
        "t",
    ).run()
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def sft_folder(tiny_folder, prompts, tmp_path):
    """A LoRA SFT adapter on the tiny model, saved as a training run saves it; its own dropout is not zero."""
    policy = Policy.load(tiny_folder)
    make_trainable(policy, ALONE, Lora(r=4, alpha=8, dropout=0.1), seed=1)
    items = [Example(p, (policy.completion_ids("No pneumothorax."),)) for p in prompts]
    train(policy, items, tmp_path / "sft", Sft())
    policy.save(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("lora", [Lora(r=4), Lora(r=4, dora=True), Lora(r=4, targets=("q_proj", "v_proj"))], ids=str)
def test_a_fresh_adapter_starts_at_its_reference_and_only_it_moves(policy, prompts, tmp_path, lora):
    items = sampled(policy, prompts)
    before = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    plain = scores(policy, prompts, [i.completions for i in items])
    make_trainable(policy, ALONE, lora, seed=0)
    names = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert names and all(".language_model." in n and "lora_" in n for n in names)
    if lora.targets != "all-linear":
        assert {n.split(".lora_")[0].rpartition(".")[2] for n in names} == set(lora.targets)
    rows = train(policy, items, tmp_path, steps=12)
    assert abs(rows[0]["margin"]) < 1e-4 and rows[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert rows[-1]["loss"] < 0.6
    moved = policy.model.get_base_model().state_dict()
    assert all(torch.equal(p, moved[n if n in moved else _inside(n)]) for n, p in before.items())
    after = scores(policy, prompts, [i.completions for i in items])
    with policy.reference():
        assert torch.equal(scores(policy, prompts, [i.completions for i in items]), plain)
    assert torch.equal(scores(policy, prompts, [i.completions for i in items]), after) and not torch.equal(after, plain)
    assert {n for n, p in policy.model.named_parameters() if p.requires_grad} == names


def _inside(name: str) -> str:
    """The name of a wrapped layer's own weight."""
    return f"{name.removesuffix('.weight')}.base_layer.weight"


def test_shared_prefix_equals_plain_with_an_adapter(sft_folder, tiny_folder, prompts):
    """Values and gradients, each completion in a pass of its own against all in one."""
    policy = Policy.load(sft_folder)
    groups = [i.completions for i in sampled(policy, prompts)]
    make_trainable(policy, ALONE, Lora(r=4, alpha=8), seed=0)
    learn = [p for p in policy.model.parameters() if p.requires_grad]
    shared = scores(policy, prompts, groups)
    plain = torch.cat([scores(policy, [p], [[t]]) for p, g in zip(prompts, groups, strict=True) for t in g])
    assert torch.allclose(shared, plain, atol=1e-5)
    weights = torch.linspace(-1, 1, len(shared))
    one, two = (torch.autograd.grad((x * weights).sum(), learn) for x in (shared, plain))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, two, strict=True))
    assert any(float(a.abs().max()) > 1e-3 for a in one)


def test_the_other_parts_learn_in_full_and_come_back(policy, prompts, tiny_folder, tmp_path):
    """Projector not frozen: PEFT keeps a copy, so the reference is untouched, and the folder holds what was learnt."""
    items = sampled(policy, prompts)
    plain = scores(policy, prompts, [i.completions for i in items])
    make_trainable(policy, ("tower",), Lora(r=4), seed=0)
    train(policy, items, tmp_path)
    after = scores(policy, prompts, [i.completions for i in items])
    with policy.reference():
        assert torch.equal(scores(policy, prompts, [i.completions for i in items]), plain)
    policy.save(tmp_path / "saved")
    stored = load_file(tmp_path / "saved/adapter_model.safetensors")
    assert any("multi_modal_projector" in n for n in stored) and not any("vision_tower" in n for n in stored)
    again = Policy.load(tmp_path / "saved")
    assert torch.allclose(scores(again, prompts, [i.completions for i in items]), after, atol=1e-6)
    assert not any(p.requires_grad for n, p in again.model.named_parameters() if "lora_" in n)


@pytest.mark.parametrize("name", ["llava-phi", "llava-next", "idefics3", "qwen2.5-vl", "qwen3-vl", "gemma3", "phi3"])
def test_adapters_sit_on_the_decoder_of_every_family(name):
    policy = Policy(*FAMILIES[name](), name)
    make_trainable(policy, ("tower",), Lora(r=2), seed=0)
    learn = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    inside = {n for n in learn if "lora_" in n}
    assert inside and not any(w in n for n in inside for w in ("vision", "visual", "head", "projector", "connector"))
    beside = learn - inside
    assert all(any(w in n for w in ("projector", "connector", "merger")) for n in beside) and bool(beside) == (
        name != "phi3"
    )


@pytest.mark.parametrize("name", ["llava-phi", "idefics3", "qwen2.5-vl", "gemma3"])
def test_beside_an_adapter_a_frozen_projector_stays_and_the_tower_learns(name):
    """Qwen-VL's projector is a part of its tower, which PEFT copies whole."""
    policy = Policy(*FAMILIES[name](), name)
    make_trainable(policy, ("projector",), Lora(r=2), seed=0)
    learn = {n for n, p in policy.model.named_parameters() if p.requires_grad and "lora_" not in n}
    assert learn and not any(w in n for n in learn for w in ("projector", "connector", "merger"))


def test_lora_continues_lora(sft_folder, tiny_folder, prompts, tmp_path):
    """The reference is base + SFT adapter, the start its copy, and gradients reach the new adapter alone."""
    policy = Policy.load(sft_folder)
    items = sampled(policy, prompts)
    start = scores(policy, prompts, [i.completions for i in items])
    base = scores(Policy.load(tiny_folder), prompts, [i.completions for i in items])
    assert not torch.allclose(start, base, atol=1e-2)
    make_trainable(policy, ALONE, Lora(r=4, alpha=8), seed=0)
    names = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert names and all("lora_" in n and n.endswith(".default.weight") for n in names)
    frozen = {n: p.detach().clone() for n, p in policy.model.named_parameters() if n not in names}
    rows = train(policy, items, tmp_path, steps=12)
    assert abs(rows[0]["margin"]) < 1e-4 and rows[-1]["margin"] > 0.05
    now = dict(policy.model.named_parameters())
    assert all(torch.equal(p, now[n]) and now[n].grad is None for n, p in frozen.items())
    with policy.reference(), torch.no_grad():
        assert torch.allclose(scores(policy, prompts, [i.completions for i in items]), start, atol=1e-6)
    after = scores(policy, prompts, [i.completions for i in items])
    policy.save(tmp_path / "aligned")
    assert torch.allclose(
        scores(Policy.load(tmp_path / "aligned"), prompts, [i.completions for i in items]), after, atol=1e-6
    )


def test_full_fine_tuning_of_an_adapter_baseline_merges_it(sft_folder, prompts, tmp_path):
    policy = Policy.load(sft_folder)
    groups = [i.completions for i in sampled(policy, prompts)]
    before = scores(policy, prompts, groups)
    make_trainable(policy, ("tower",), None, seed=0)
    assert torch.allclose(scores(policy, prompts, groups), before, atol=1e-5)
    assert policy.model.lm_head.weight.requires_grad and not hasattr(policy.model, "peft_config")
    policy.save(tmp_path / "merged")
    assert torch.allclose(scores(Policy.load(tmp_path / "merged"), prompts, groups), before, atol=1e-5)
    with pytest.raises(WorkError, match="holds no reference"), policy.reference():
        pass


def test_dropout_acts_in_training_only_and_repeats(policy, prompts, tiny_folder, tmp_path):
    items = sampled(policy, prompts)
    make_trainable(policy, ALONE, Lora(r=4, dropout=0.5), seed=0)
    rows = train(policy, items, tmp_path / "one")
    twin = Policy.load(tiny_folder)
    make_trainable(twin, ALONE, Lora(r=4, dropout=0.5), seed=0)
    again = train(twin, items, tmp_path / "two")
    assert [r["loss"] for r in rows] == [r["loss"] for r in again] and abs(rows[0]["margin"]) < 1e-4
    exact = Policy.load(tiny_folder)
    make_trainable(exact, ALONE, Lora(r=4), seed=0)
    assert [r["loss"] for r in train(exact, items, tmp_path / "three")] != [r["loss"] for r in rows]
    groups = [i.completions for i in items]
    assert torch.equal(scores(policy, prompts, groups), scores(policy, prompts, groups))


def test_a_run_can_be_moved(tiny_folder, prompts, tmp_path):
    """Base and adapter in one run folder: the adapter names its base from where it lies."""
    run = tmp_path / "run"
    shutil.copytree(tiny_folder, run / "baseline")
    (run / "manifest.json").write_text("{}")
    policy = Policy.load(run / "baseline")
    make_trainable(policy, ALONE, Lora(r=4), seed=0)
    policy.save(run / "policy")
    assert json.loads((run / "policy/adapter_config.json").read_text())["base_model_name_or_path"] == "../baseline"
    assert sorted(p.name for p in (run / "policy").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
    ]
    run.rename(tmp_path / "moved")
    assert Policy.load(tmp_path / "moved/policy").name == "policy"


def test_an_adapter_names_a_base_from_the_hub_by_its_id(tiny_folder, tmp_path, monkeypatch):
    """Not by the folder where this machine keeps what it has downloaded: another machine has none of that name."""
    monkeypatch.setattr("chexalign.policies.checkpoints.load.downloaded_before", lambda name: str(tiny_folder))
    policy = Policy.load("nobody/tiny")
    make_trainable(policy, ALONE, Lora(r=4), seed=0)
    policy.save(tmp_path / "policy")
    named = json.loads((tmp_path / "policy/adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == "nobody/tiny" and Policy.load(tmp_path / "policy").name == "policy"


def test_a_run_trained_with_an_adapter_opens_its_policy(tiny_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("policy", "evaluation", "train_log.jsonl"))
    settings = [f"run_dir={folder}", *OVERRIDES, "train.lora={r: 4, targets: [q_proj]}", "train.lr=1e-2"]
    run = Run(load_recipe("tiny", settings), folder, {"stages": {}})
    align(run)
    prompts = [
        Prompt(p.prompt, tuple(i for i, _ in p.images), folder) for p in read_records(run.path("pairs.jsonl"), Pair)
    ]
    aligned, baseline = open_policy(run, "aligned"), open_policy(run, "baseline")
    texts = [[s.tokens for g in p.generate(prompts[:4], 1, 0.0, 8) for s in g] for p in (aligned, baseline)]
    values = [float(scores(p, prompts[:1], [[texts[1][0]]]).detach().sum()) for p in (aligned, baseline)]
    assert len(texts[0]) == 4 and abs(values[0] - values[1]) > 1e-3
    assert (folder / "policy/adapter_model.safetensors").stat().st_size < (
        folder / "baseline/model.safetensors"
    ).stat().st_size / 10


def test_what_does_not_fit_is_one_clear_line(policy, sft_folder, tmp_path):
    with pytest.raises(RecipeError, match="no linear layer 'qproj'; there are q_proj, k_proj"):
        make_trainable(policy, ALONE, Lora(targets=("qproj",)), seed=0)
    for wrong, message in (
        (Lora(r=8, alpha=8), "has r 4, alpha 8"),
        (Lora(r=4, alpha=8, targets=("q_proj",)), "must be the baseline adapter's"),
        (Lora(r=4, alpha=8, dropout=0.1), "dropout must be 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            make_trainable(Policy.load(sft_folder), ALONE, wrong, seed=0)
    with pytest.raises(RecipeError, match="does not hold the projector: add it to train.freeze"):
        make_trainable(Policy.load(sft_folder), ("tower",), Lora(r=4, alpha=8), seed=0)
    path = sft_folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({n: w for n, w in weights.items() if "layers.0" not in n}, path)
    with pytest.raises(RecipeError, match="does not fit its base"):
        Policy.load(sft_folder)
    path.unlink()
    with pytest.raises(RecipeError, match="only safetensors"):
        Policy.load(sft_folder)
    (sft_folder / "adapter_config.json").write_text("{}")
    with pytest.raises(RecipeError, match="names no base model"):
        Policy.load(sft_folder)


def test_frozen_weights_are_kept_in_the_type_they_are_multiplied_in(tiny_folder, prompts):
    """Same values and gradients as when autocast copies them in every pass; what learns stays in float32."""
    found = []
    for narrow in (True, False):
        policy = Policy.load(tiny_folder)
        if narrow:
            policy.compute_in("bfloat16")
        make_trainable(policy, ALONE, Lora(r=4, alpha=8), seed=1)
        policy.compute_in("bfloat16")
        base = {m.weight.dtype for n, m in policy.model.named_modules() if n.endswith(".base_layer")}
        assert base == {torch.bfloat16 if narrow else torch.float32}
        learning = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for i, parameter in enumerate(learning.values()):
                parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
        values = scores(policy, prompts[:2], [[[5, 6, 7]], [[8, 9]]])
        values.sum().backward()
        assert {p.dtype for p in learning.values()} == {torch.float32}
        found.append((values.detach(), {n: p.grad for n, p in learning.items()}))
    (ours, gradients), (theirs, others) = found
    assert torch.equal(ours, theirs)
    assert all(torch.equal(gradients[n], others[n]) for n in others)
