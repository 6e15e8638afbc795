"""Reference log-probs are computed once, kept by content, shared by runs, and survive a crash."""

import json
from dataclasses import replace

import pytest
import torch
from tests.driver import OVERRIDES

from chexalign.errors import WorkError
from chexalign.jsonl import read_records
from chexalign.policies import Policy, trainable
from chexalign.recipe.files import load_recipe
from chexalign.recipe.policy import Lora
from chexalign.recipe.preference import Dpo, Kto
from chexalign.records import Pair
from chexalign.run.folder import Run
from chexalign.run.policies import open_for_training
from chexalign.stages.train import align, training_examples
from chexalign.train.preference import references
from chexalign.train.preference.references import content_key, with_references
from chexalign.train.preference.scoring_task import Example, ScoringTask


@pytest.fixture
def scored(monkeypatch) -> list[int]:
    """How many completions each call of the policy has scored."""
    calls, real = [], Policy.token_logps

    def counting(self, prompts, completions):
        calls.append(sum(map(len, completions)))
        return real(self, prompts, completions)

    monkeypatch.setattr(Policy, "token_logps", counting)
    return calls


def cut(items):
    """Passes of three prompts."""
    return [items[i : i + 3] for i in range(0, len(items), 3)]


def unknown(policy, prompts) -> list[Example]:
    groups = policy.generate(prompts, 2, 1.0, 12, seed=3)
    return [Example(p, tuple(s.tokens for s in g), (None, None)) for p, g in zip(prompts, groups, strict=True)]


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_only_what_is_unknown_is_computed_and_only_once(policy, prompts, tmp_path, scored):
    path, items = tmp_path / "references.jsonl", unknown(policy, prompts)
    half = [Example(e.prompt, e.completions, (-7.5, None)) for e in items[:3]]
    first = with_references(policy, half, path, "float32", cut)
    assert sum(scored) == 3 and [e.ref_logps[0] for e in first] == [-7.5] * 3
    whole = with_references(policy, [*items, *items], path, "float32", cut)
    assert sum(scored) == 3 + (2 * len(items) - 3) == len(rows(path))
    assert whole[: len(items)] == whole[len(items) :] and whole[0].ref_logps[1] == first[0].ref_logps[1]
    expected = policy.token_logps([items[1].prompt], [items[1].completions])[0]
    assert whole[1].ref_logps == pytest.approx([float(x.detach().sum()) for x in expected], abs=1e-4)


def test_a_crash_loses_the_torn_line_and_no_more(policy, prompts, tmp_path, scored):
    path, items = tmp_path / "references.jsonl", unknown(policy, prompts)
    whole = with_references(policy, items, path, "float32", cut)
    before = path.read_text().splitlines(keepends=True)
    path.write_text("".join(before[:7]) + before[7][:20])
    scored.clear()
    again = with_references(policy, items, path, "float32", cut)
    assert sum(scored) == len(before) - 7 and len(rows(path)) == len(before)
    for a, b in zip(again, whole, strict=True):
        assert a.ref_logps == pytest.approx(b.ref_logps, abs=1e-4)


@pytest.mark.parametrize("bad", ['{"key": "x"}', "[1]", '{"key": "x", "logp": null}', "{"])
def test_a_bad_line_is_named(policy, prompts, tmp_path, bad):
    path = tmp_path / "references.jsonl"
    path.write_text('{"key": "y", "logp": -1.5}\n' + bad + "\n")
    with pytest.raises(WorkError, match=r"references.jsonl:2: not a stored reference log-prob; delete the file"):
        with_references(policy, unknown(policy, prompts), path, "float32", cut)


def test_keys_tell_prompt_images_tokens_and_type_apart_and_nothing_else(prompts, tmp_path):
    prompt, tokens = prompts[1], (5, 6, 2)
    key = content_key(prompt, tokens, "float32")
    assert content_key(replace(prompt, root=tmp_path), list(tokens), "float32") == key
    others = [
        content_key(replace(prompt, text=prompt.text + "."), tokens, "float32"),
        content_key(replace(prompt, images=prompt.images[::-1]), tokens, "float32"),
        content_key(prompt, (5, 62), "float32"),
        content_key(prompt, tokens, "bfloat16"),
    ]
    assert len({key, *others}) == 5


def test_pairs_without_references_get_computed_ones(run, scored):
    pairs, policy = read_records(run.path("pairs.jsonl"), Pair), open_for_training(run)
    bare = [Pair.from_dict({**p.to_dict(), "ref_chosen_logp": None}) for p in pairs]
    examples = training_examples(run, policy, bare, ScoringTask(policy, Dpo()))
    assert sum(scored) == len(pairs)  # the rejected ones keep the sampler's
    for p, e in zip(pairs, examples, strict=True):
        assert e.ref_logps == pytest.approx([p.ref_chosen_logp, p.ref_rejected_logp], abs=1e-3)


def test_a_pair_whose_text_was_changed_by_hand_is_named_and_its_remedy_works(run):
    """Its tokens would still be those of the old text, and training takes the tokens."""
    pairs, policy = read_records(run.path("pairs.jsonl"), Pair), open_for_training(run)
    pairs[2] = replace(pairs[2], rejected="The heart is normal.")
    task = ScoringTask(policy, Dpo())
    with pytest.raises(
        WorkError, match=r"pairs.jsonl:3: rejected_tokens .* remove rejected_tokens and ref_rejected_logp"
    ):
        training_examples(run, policy, pairs, task)
    pairs[2] = replace(pairs[2], rejected_tokens=(), ref_rejected_logp=None)
    example = training_examples(run, policy, pairs, task)[2]
    assert example.completions[1] == policy.completion_ids("The heart is normal.")


def test_log_probs_that_are_not_numbers_are_noticed(policy, prompts):
    items = [Example(prompts[0], ((5, 2), (6, 2)), (float("nan"), -1.0))]
    task = ScoringTask(policy, Dpo())
    with pytest.raises(WorkError, match="step-0"), torch.no_grad():
        task.check_first(task.module(*task.inputs(items)), items)


def test_one_file_serves_a_grid_of_runs(run, scored, tmp_path):
    """Further runs with other hyper-parameters, also branches of a sweep, compute nothing."""

    def train(folder, *more):
        recipe = load_recipe("tiny", [f"run_dir={folder}", *OVERRIDES, "train.epochs=1", *more])
        align(Run(recipe, folder, {"stages": {}}, trunk=None if folder == run.dir else run.dir))

    train(run.dir, "train.algorithm={type: kto, beta: 0.1}")
    n = len(read_records(run.path("pairs.jsonl"), Pair))
    assert sum(scored) == 2 * n and len(rows(run.path("reference_logps.jsonl"))) == sum(scored)
    train(tmp_path / "one", "train.algorithm={type: kto, beta: 0.5, nll: 0.1, undesirable_weight: 2}", "train.lr=1e-3")
    train(tmp_path / "two", "train.algorithm={type: dpo, beta: 0.5}")
    assert sum(scored) == 2 * n and (tmp_path / "two/policy/model.safetensors").is_file()
    assert not (tmp_path / "one/reference_logps.jsonl").exists()


def test_16_bit_computes_its_own_and_starts_at_zero_margins(run, scored):
    recipe = load_recipe(
        "tiny", [f"run_dir={run.dir}", *OVERRIDES, "policy.dtype=bfloat16", "train.algorithm={type: kto}"]
    )
    align(Run(recipe, run.dir, {"stages": {}}))
    assert sum(scored) == 4 * len(read_records(run.path("pairs.jsonl"), Pair))
    first = rows(run.path("train_log.jsonl"))[0]
    assert abs(first["margin"]) < 0.05 and abs(first["kl"]) < 0.5


def test_a_wrong_stored_reference_of_a_free_completion_is_found(run):
    policy, pairs = open_for_training(run), read_records(run.path("pairs.jsonl"), Pair)
    task, path = ScoringTask(policy, Kto()), run.path("reference_logps.jsonl")
    training_examples(run, policy, pairs, task)
    write = [{**row, "logp": row["logp"] - 1} if i == 3 else row for i, row in enumerate(rows(path))]
    path.write_text("".join(json.dumps(row) + "\n" for row in write))
    assert len(pairs) <= references.CHECKED_PAIRS
    with pytest.raises(WorkError, match="step-0 margins are not zero.*reference_logps.jsonl was computed with another"):
        training_examples(run, policy, pairs, task)


def test_the_tolerance_is_that_of_the_computing_type(policy, prompts, tmp_path):
    items = with_references(policy, unknown(policy, prompts), tmp_path / "references.jsonl", "float32", cut)
    task = ScoringTask(policy, Dpo())

    def check(nats_per_token):
        moved = [
            Example(
                e.prompt,
                e.completions,
                tuple(v + nats_per_token * len(t) for v, t in zip(e.ref_logps, e.completions, strict=True)),
            )
            for e in items
        ]
        references.check_references(moved, task, cut)

    check(0.001)
    with pytest.raises(WorkError, match="step-0"):
        check(0.03)
    policy.compute_in("bfloat16")
    check(0.03)
    with pytest.raises(WorkError, match="step-0"):
        check(0.2)


def test_size_counts_the_prompt_where_a_token_budget_asks(policy, prompts):
    task, item = ScoringTask(policy, Dpo()), Example(prompts[1], ((5, 2), (5, 6, 7, 2)))
    assert task.size(item) == 2 * 4
    task.count_prefix = True
    assert task.size(item) == 2 * 4 + policy.encode([prompts[1]]).ids.shape[1]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT asks for it
@pytest.mark.parametrize("continued", [False, True])
def test_with_lora_the_reference_is_the_model_before_training(tiny_folder, prompts, tmp_path, continued):
    """Adapter off, or the frozen SFT adapter: computed after the trained adapter moved, the references do not move."""
    plain = Policy.load(tiny_folder)
    items = unknown(plain, prompts)
    lora = Lora(r=4)
    policy = Policy.load(tiny_folder)
    trainable.make_trainable(policy, ("tower", "projector"), lora, 0)
    if continued:
        move(policy)
        policy.save(tmp_path / "sft")
        plain, policy = (Policy.load(tmp_path / "sft") for _ in range(2))
        trainable.make_trainable(policy, ("tower", "projector"), lora, 0)
    before = with_references(policy, items, tmp_path / "before.jsonl", "float32", cut)
    references.check_references(before, ScoringTask(policy, Dpo()), cut)
    with torch.no_grad():
        expected = plain.token_logps([e.prompt for e in items], [e.completions for e in items])
    move(policy)
    after = with_references(policy, items, tmp_path / "after.jsonl", "float32", cut)
    for a, b, c in zip(before, expected, after, strict=True):
        for found in (a.ref_logps, c.ref_logps):
            assert found == pytest.approx([float(x.sum()) for x in b], abs=1e-4)
    with pytest.raises(WorkError, match="step-0"):  # the policy itself has moved
        references.check_references(after, ScoringTask(policy, Dpo()), cut)


def move(policy) -> None:
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if p.requires_grad and "lora_B" in name:
                p.normal_(std=0.3)
