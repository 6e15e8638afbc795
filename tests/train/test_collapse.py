"""A reward that pays for the wrong thing: the run says that it collapses, and keeps the weights that the watch judge likes."""

import json

from tests.train.test_online_training import SETTINGS, Vowels, asked, make_task, opened  # noqa: F401 (asked is a fixture)

from chexalign.judges.contract import Judgement
from chexalign.recipe.online import Rollout
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.online.task import validator


class Consonants(Vowels):
    """The watch judge, to which what the reward pays for is worth nothing."""

    def score(self, reports, references, studies=None):
        return [Judgement(1 - answer.score) for answer in super().score(reports, references, studies)]


def test_a_collapse_is_said_once_marked_in_the_log_and_not_kept(tiny_folder, asked, tmp_path, capfd):  # noqa: F811
    policy = opened(tiny_folder)
    task = make_task(policy, Vowels(), n=8, max_new_tokens=24)
    watched = validator(policy, Consonants(), asked, Rollout(n=2, max_new_tokens=24), "consonants")
    settings = {**SETTINGS, "steps": 60, "lr": 2e-2, "eval_every": 10, "eval_first": True, "patience": 99}
    Trainer(task, asked, LoopSettings(**settings), LoopFiles(tmp_path, tmp_path / "log.jsonl"), "test", watched).run()
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.3  # the reward is pleased
    assert [k for k in rows[0] if k.startswith("warn_")] == ["warn_truncated"]  # a random policy seldom stops by itself
    assert {"length", "distinct", "truncated"} <= set(task.warned)
    said = " ".join(capfd.readouterr().err.split())
    for name, times in task.warned.items():
        assert times == sum(bool(r.get(f"warn_{name}")) for r in rows)
        assert said.count(f"the run may be collapsing (train.watch.{name})") == 1
    values = [r["val_consonants"] for r in rows if "val_consonants" in r]
    kept = watched()["val_consonants"]
    assert kept > values[-1] + 0.2 and kept >= max(values) - 1e-9
