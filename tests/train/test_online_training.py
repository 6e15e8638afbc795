"""Online training: rounds, groups, what is left out and counted, inner steps, resume, the tiny road per algorithm."""

import json
import os
import shutil
import signal

import pytest
import torch
from tests.driver import OVERRIDES
from typer.testing import CliRunner

from chexalign.cli.commands import app
from chexalign.errors import RecipeError, WorkError
from chexalign.judges.contract import Judgement
from chexalign.policies import Policy
from chexalign.recipe.files import build_recipe, load_recipe
from chexalign.recipe.online import Grpo, Rollout, Watch
from chexalign.recipe.train import Train
from chexalign.records import Study
from chexalign.run.folder import Run
from chexalign.stages.runner import run_stages
from chexalign.stages.train import align
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.online import task as online_task
from chexalign.train.online.rollout import PromptedStudy, roll_out
from chexalign.train.online.stats import out_of_bounds, part_scores, repetition, reward_stats
from chexalign.train.online.task import OnlineTask

SETTINGS = {"lr": 1e-3, "batch_size": 4, "micro_batch_size": 4, "seed": 0, "schedule": "constant", "warmup_share": 0.0}


class Vowels:
    """Share of vowels, so that random texts differ; abstains, scores 0 or says the same where it is told to."""

    name, version = "vowels", "1"

    def __init__(self, silent=(), zero=(), same=()):
        self.silent, self.zero, self.same = silent, zero, same

    def score(self, reports, references, studies=None):
        answers = []
        for report, study in zip(reports, studies, strict=True):
            if study.study_id in self.silent:
                answers.append(Judgement(None, "no answer"))
            elif study.study_id in self.zero:
                answers.append(Judgement(0.0))
            elif study.study_id in self.same:
                answers.append(Judgement(0.7))
            else:
                answers.append(Judgement(sum(c in "aeiou" for c in report) / max(1, len(report))))
        return answers


@pytest.fixture
def asked(prompts) -> list[PromptedStudy]:
    said = "The heart is normal."
    return [PromptedStudy(Study(f"s{i}", f"p{i}", "train", findings=said), p, said) for i, p in enumerate(prompts)]


def make_task(policy, judge, algorithm=None, tiny_folder=None, **rollout) -> OnlineTask:
    sampling = Rollout(**{"n": 4, "max_new_tokens": 10, "batch_size": 3, **rollout})
    reference = None
    if tiny_folder is not None:
        reference = Policy.load(tiny_folder)
        reference.model.requires_grad_(False)
    return OnlineTask(
        policy, reference, judge, online_task.OnlineSettings(algorithm or Grpo(kl=0), sampling, Watch(), 0)
    )


def opened(folder) -> Policy:
    policy = Policy.load(folder)
    policy.freeze(("tower",))
    return policy


def gradients(task, groups) -> dict[str, torch.Tensor]:
    task.module.zero_grad()
    values, _ = task.loss(task.module(*task.inputs(groups)), groups)
    (values.sum() / len(groups)).backward()
    return {n: p.grad.clone() for n, p in task.module.named_parameters() if p.grad is not None}


def test_token_log_probs_of_the_sampler_are_the_scorers(policy, prompts):
    groups = policy.generate(prompts, 3, 1.0, 12, seed=5)
    scored = policy.token_logps(prompts, [[s.tokens for s in g] for g in groups])
    for group, rows in zip(groups, scored, strict=True):
        for one, row in zip(group, rows, strict=True):
            assert one.token_logps == pytest.approx(row.tolist(), abs=2e-5)
            assert sum(one.token_logps) == one.logp and len(one.token_logps) == len(one.tokens)


def test_a_round_depends_on_seed_round_and_study_alone(policy, asked):
    whole = roll_out(policy, asked, Rollout(n=3, max_new_tokens=8), 1, 2)
    alone = roll_out(policy, asked[2:3], Rollout(n=3, max_new_tokens=8), 1, 2)
    assert whole[2].texts == alone[0].texts
    assert whole[2].texts != roll_out(policy, asked[2:3], Rollout(n=3, max_new_tokens=8), 1, 3)[0].texts


def test_groups_without_signal_are_left_out_and_change_nothing(tiny_folder, asked, monkeypatch):
    """The step's gradient is that of all groups, scored and all."""
    task = make_task(opened(tiny_folder), Vowels(zero={"s1"}, same={"s3"}))
    groups, row = task.prepare(0, asked)
    assert [g.study_id for g in groups] == ["s0", "s2", "s4"] and row["groups"] == 3
    assert row["no_signal"] == pytest.approx(2 / 5) and row["zero_reward_rate"] == pytest.approx(1 / 5)
    short = gradients(task, groups)
    monkeypatch.setattr(OnlineTask, "_teaches", lambda self, group: True)
    everyone, _ = task.prepare(0, asked)
    long = gradients(task, everyone)
    assert len(everyone) == 5 and short.keys() == long.keys()
    assert all(torch.allclose(short[n], long[n], atol=1e-6) for n in short)


def test_an_abstention_leaves_the_group_and_is_counted(tiny_folder, asked):
    class Half(Vowels):
        def score(self, reports, references, studies=None):
            found = super().score(reports, references, studies)
            return [Judgement(None, "unreadable") if i % 4 == 1 else a for i, a in enumerate(found)]

    task = make_task(opened(tiny_folder), Half(), Grpo(kl=0.1), tiny_folder)
    groups, row = task.prepare(0, asked)
    assert row["coverage"] == pytest.approx(0.75) and row["abstained"] == pytest.approx(0.25)
    for group in groups:
        assert group.learns == (True, False, True, True) and group.advantages[1] == 0
        assert sum(group.advantages) == pytest.approx(0, abs=1e-9)
    output = task.module(*task.inputs(groups))
    output.retain_grad()
    task.loss(output, groups)[0].sum().backward()
    rows = output.grad.view(len(groups), 4, -1)
    assert (rows[:, 1] == 0).all() and (rows[:, 0].abs().sum(1) > 0).all()


def test_nothing_scored_is_an_error_not_a_zero(tiny_folder, asked):
    task = make_task(opened(tiny_folder), Vowels(silent={a.study.study_id for a in asked}))
    with pytest.raises(WorkError, match=r"none of this round's samples: judge vowels: no answer"):
        task.prepare(0, asked)


def test_truncated_samples_can_be_masked_but_still_set_the_baseline(tiny_folder, asked):
    plain, masked = (
        make_task(opened(tiny_folder), Vowels(), mask_truncated=m, max_new_tokens=3) for m in (False, True)
    )
    first, second = plain.prepare(0, asked)[0], masked.prepare(0, asked)[0]
    assert first and all(all(g.learns) for g in first)
    samples = roll_out(plain.policy, asked, plain.settings.rollout, 0, 0)
    for group in second:
        kind = [s.finish_reason == "stop" for s in samples[int(group.study_id[1:])].sampled]
        assert list(group.learns) == kind
        assert group.advantages == next(g.advantages for g in first if g.study_id == group.study_id)


def test_a_better_sample_becomes_likelier(tiny_folder, asked):
    task = make_task(opened(tiny_folder), Vowels())
    groups, _ = task.prepare(0, asked[:2])
    output = task.module(*task.inputs(groups))
    output.retain_grad()
    task.loss(output, groups)[0].sum().backward()
    for group, rows in zip(groups, output.grad.view(len(groups), 4, -1), strict=True):
        for gain, row, tokens in zip(group.advantages, rows, group.completions, strict=True):
            assert (row[: len(tokens)] * gain <= 0).all() and (row[len(tokens) :] == 0).all()


def run_trainer(folder, policy_folder, asked, **changes):
    policy = opened(policy_folder)
    inner = changes.pop("inner", 1)
    algorithm, judge = changes.pop("algorithm", Grpo(kl=0.05)), changes.pop("judge", Vowels())
    task = make_task(policy, judge, algorithm, policy_folder, inner_steps=inner, n=changes.pop("n", 4))
    settings = LoopSettings(**{**SETTINGS, "steps": 4, "repeat": inner, **changes})
    Trainer(task, asked, settings, LoopFiles(folder / "work", folder / "log.jsonl"), "test").run()
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return rows, policy


def test_inner_steps_learn_twice_from_one_round_and_then_sample_again(tiny_folder, asked, tmp_path):
    rows, _ = run_trainer(tmp_path, tiny_folder, asked, inner=2, lr=3e-2)
    assert [r["round"] for r in rows] == [0, 0, 1, 1]
    assert rows[0]["reward"] == rows[1]["reward"] != rows[2]["reward"]
    assert rows[0]["clip_share"] == 0 < rows[1]["clip_share"]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6) and rows[1]["kl"] > 1e-4


def test_a_round_without_signal_changes_nothing_but_the_schedule(tiny_folder, asked, tmp_path):
    everyone = {a.study.study_id for a in asked}
    rows, policy = run_trainer(tmp_path, tiny_folder, asked, judge=Vowels(same=everyone), steps=2)
    assert [r["groups"] for r in rows] == [0, 0] and [r["loss"] for r in rows] == [0, 0]
    before = Policy.load(tiny_folder).model.state_dict()
    assert all(torch.equal(v, before[n]) for n, v in policy.model.state_dict().items())


def test_learning_raises_the_reward(tiny_folder, asked, tmp_path):
    rows, _ = run_trainer(tmp_path, tiny_folder, asked, steps=40, lr=1e-2, algorithm=Grpo(kl=0), n=8)
    first, last = (sum(r["reward"] for r in part) / 5 for part in (rows[:5], rows[-5:]))
    assert last > first + 0.1


def test_repetition_by_hand():
    assert repetition("a b c d e") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("no no") == 0


def test_reward_numbers_by_hand():
    parts = {"parts": {"x": {"score": 0.5, "details": {"parts": {"y": {"score": None, "details": {}}}}}}}
    answers = [[Judgement(0.0), Judgement(0.0)], [Judgement(0.5, details=parts), Judgement(None, "e")]]
    assert part_scores(parts) == {"x": 0.5, "y": None}
    row = reward_stats(answers)
    assert row["reward"] == pytest.approx(0.5 / 3) and row["coverage"] == 0.75 and row["abstained"] == 0.25
    assert row["reward/x"] == 0.5 and row["coverage/x"] == 0.25 and row["coverage/y"] == 0 and "reward/y" not in row
    assert row["zero_reward_rate"] == 0.5 and row["no_signal"] == 1 and row["advantage_spread"] == 0


def test_bounds():
    fine = {"length_ratio": 1.0, "repetition": 0.0, "distinct": 1.0, "truncated": 0.0}
    assert not out_of_bounds(fine, Watch())
    for name, value in (
        ("length_ratio", 9),
        ("length_ratio", 0.1),
        ("repetition", 0.5),
        ("distinct", 0.01),
        ("truncated", 0.6),
    ):
        assert len(out_of_bounds({**fine, name: value}, Watch())) == 1


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"algorithm": "grpo"}, "grpo needs a reward, for example reward: finding_f1"),
        ({"algorithm": "dpo", "reward": "rouge_l"}, "dpo learns from pairs: remove reward: rouge_l"),
        ({"algorithm": "grpo", "reward": "chexpert_rule_f1"}, "watch.judge 'chexpert_rule_f1' is in the reward"),
        (
            {"algorithm": {"type": "orapo", "w_min": 0.5, "w_max": 0.1}, "reward": "facts"},
            "w_min 0.5 is above w_max 0.1",
        ),
        (
            {"algorithm": "grpo", "reward": "bleu4 + lc_rouge_l/2 + rouge_l", "watch": {"judge": "rouge_l"}},
            "is in the reward",
        ),
        ({"algorithm": "valor", "reward": "bleu4", "watch": {"judge": "visual"}}, "is in the reward"),
        ({"algorithm": "grpo", "reward": "facts", "rollout": {"n": 1}}, "greater than or equal to 2"),
    ],
)
def test_a_wrong_recipe_gets_one_clear_line(train, message):
    with pytest.raises(RecipeError) as error:
        build_recipe({"name": "x", "studies": {"source": "phantom"}, "warmup": {}, "train": train}, "r.yaml")
    assert message in str(error.value)


def test_what_is_online():
    assert Train(algorithm="grpo", reward="lc_rouge_l", watch={"judge": "rouge_l"}).watch.judge == "rouge_l"
    assert not Train().online and Train(algorithm={"type": "grpo"}, reward="rouge_l").online


# ---- the whole road, small

ONLINE = [
    "train.reward=rouge_l", "train.rollout.n=3", "train.rollout.max_new_tokens=12", "train.rollout.rounds=6",
    "train.rollout.inner_steps=2", "train.watch.every=2", "train.watch.limit=3", "train.batch_size=4", "train.save_every=2",
    "train.lr=1e-3",
]  # fmt: skip


def rows_of(folder) -> list[dict]:
    timed = {"seconds", "rollout_seconds", "reward_seconds", "tokens_per_second"}
    lines = (folder / "train_log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def prepared(source, folder):
    """A run folder whose studies and warm-up are another run's."""
    folder.mkdir()
    for name in ("studies.jsonl", "images", "baseline"):
        (shutil.copytree if (source / name).is_dir() else shutil.copy2)(source / name, folder / name)
    manifest = json.loads((source / "manifest.json").read_text())
    manifest["stages"] = {k: v for k, v in manifest["stages"].items() if k in ("studies", "warmup")}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def same(whole, killed) -> list[dict]:
    one, two = ((f / "policy/model.safetensors").read_bytes() for f in (whole, killed))
    assert one == two
    assert rows_of(whole) == rows_of(killed)
    assert [r["step"] for r in rows_of(whole)] == list(range(12)) and not (whole / "train").exists()
    return rows_of(whole)


def killed_at(row: int, recipe) -> int:
    """Train in a process of its own, forked from this one, which is killed, hard, half a log row later; its signal."""
    child = os.fork()
    if child == 0:
        append = Trainer._append_log

        def dying(trainer, made):
            append(trainer, made)
            if made["step"] == row:
                with open(trainer.log, "a") as handle:
                    handle.write('{"step": 99, "torn')
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            Trainer._append_log = dying
            run_stages(recipe, ["train"])
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def test_the_road_survives_kill_9_and_ends_in_the_same_weights(tiny_run, tmp_path):
    whole, killed = (prepared(tiny_run, tmp_path / n) for n in ("whole", "killed"))
    more = [*OVERRIDES, *ONLINE, "train.algorithm=grpo"]
    done = CliRunner().invoke(app, ["run", "tiny", f"run_dir={whole}", *more])
    assert done.exit_code == 0, done.output
    recipe = load_recipe("tiny", [f"run_dir={killed}", *more])
    assert killed_at(5, recipe) == signal.SIGKILL
    assert "torn" in (killed / "train_log.jsonl").read_text() and not (killed / "policy").exists()
    run_stages(recipe, ["train"])
    same(whole, killed)
    stages = json.loads((whole / "manifest.json").read_text())["stages"]
    assert list(stages) == ["studies", "warmup", "train", "evaluate"] and stages["train"]["extra"]["rounds"] == 6
    assert (whole / "report.html").exists() and not (whole / "pairs.jsonl").exists()


ROADS = {  # algorithm → settings, the reward of each stage
    "orapo": (
        ["train.algorithm=orapo", "train.reward=facts", "train.rollout.studies=12", "train.rollout.balanced=true"],
        ["facts"],
    ),
    "valor": (
        ["train.algorithm={type: valor, visual: rank(bleu4), freeze_2: [tower, projector]}"],
        ["rouge_l", "0.5*(rouge_l) + 0.5*(rank(bleu4))"],
    ),
    "lora": (["train.algorithm=grpo", "train.lora={r: 4}", "train.freeze=[tower, projector]"], ["rouge_l"]),
}


def further_is_better(policy, *_):
    """A validation that takes the latest weights for the best, so that what is compared has been trained."""
    weights = [p for p in policy.scorer.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in weights]
    return lambda: {"val_loss": -float(sum((p - s).norm() for p, s in zip(weights, start, strict=True)))}


@pytest.mark.parametrize("name", ROADS)
def test_every_algorithm_resumes_inside_any_of_its_stages(name, tiny_run, tmp_path, monkeypatch):
    changes, rewards = ROADS[name]
    monkeypatch.setattr("chexalign.stages.train_online.validator", further_is_better)
    whole, broken = (prepared(tiny_run, tmp_path / n) for n in ("whole", "broken"))
    runs = [Run(load_recipe("tiny", [f"run_dir={f}", *OVERRIDES, *ONLINE, *changes]), f, {}) for f in (whole, broken)]
    told = align(runs[0]).extra
    assert told["rounds"] == 6 and [s["reward"] for s in told["stages"]] == rewards
    append, calls = Trainer._append_log, []

    def breaking(trainer, row):
        append(trainer, row)
        calls.append(row)
        if len(calls) in (4, 12):
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_append_log", breaking)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            align(runs[1])
    assert align(runs[1]).extra["stages"] == told["stages"]
    assert all(s["best_round"] == s["rounds"] for s in told["stages"])
    file = "adapter_model.safetensors" if name == "lora" else "model.safetensors"
    one, two = ((f / "policy" / file).read_bytes() for f in (whole, broken))
    assert one == two and rows_of(whole) == rows_of(broken)
    if name != "lora":
        assert one != (whole / "baseline" / file).read_bytes()
