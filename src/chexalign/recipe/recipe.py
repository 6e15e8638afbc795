"""A recipe is one YAML file that names a whole run: typed, closed, with defaults that are the vetted settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, field_validator, model_validator

from chexalign.recipe.base import Count, Rate, Section, Seed
from chexalign.recipe.engine import Engine, InProcess, refuse_endpoint
from chexalign.recipe.policy import Lora, PolicySection
from chexalign.recipe.preference import Pairs
from chexalign.recipe.studies import Studies
from chexalign.recipe.sweep import Sweep
from chexalign.recipe.train import Train
from chexalign.recipe.warmup import Warmup


class Sample(Section):
    """CheXalign's defaults: four draws per training study at temperature 1."""

    n: Annotated[int, Field(ge=2)] = 4  # a pair needs two
    temperature: Rate = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 512
    batch_size: Count = 16  # studies per batch; each brings n samples
    limit: Count | None = None  # how many training studies; all when absent
    studies: Literal["all", "rest"] = "all"  # rest: those outside warmup.share
    engine: Engine = InProcess()  # where the samples come from (docs/use/engines.md)


# Options of judges by name, e.g. {green: {url: …}}; the names and options are the judges' own (`chexalign judges`).
JudgeOptions = dict[str, dict[str, Any]]


class Score(Section):
    """Judges by which all sampled completions are scored; `pairs.judge` is one of them."""

    judges: tuple[str, ...] = ("finding_f1", "chexpert_rule_f1", "rouge_l", "bleu4")


class Evaluate(Section):
    """The test: baseline and aligned policy on the same studies, with controls and paired bootstrap intervals."""

    judges: tuple[str, ...] = ("chexpert_rule_f1", "finding_f1", "rouge_l", "bleu4", "lc_finding_f1")
    headline: Annotated[tuple[str, ...], Field(min_length=1)] = ("chexpert_rule_f1", "finding_f1")
    limit: Count | None = None  # how many test studies; all when absent
    greedy: bool = True  # greedy decoding beside temperature 1
    shuffled_images: bool = True  # control: the aligned policy with another study's images
    untuned: bool = False  # also the model before its warm-up, beside the baseline
    grounding: StrictBool | Count = False  # where the policy looks (docs/use/grounding.md): true, or how many studies
    bootstrap: Count = 1000
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    engine: Engine = InProcess()  # where both policies' reports come from

    @field_validator("engine")
    @classmethod
    def _both_served(cls, value: Engine) -> Engine:
        return refuse_endpoint(value, "it holds one checkpoint, and the baseline and the aligned policy are two")


class ReportSection(Section):
    """The page: how many studies it shows with both policies' texts."""

    examples: Annotated[int, Field(ge=0)] = 12


class Recipe(Section):
    """A whole run. Every key is typed and an unknown one is an error; what is absent has the vetted value."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    task: Literal["findings", "impression"] = "findings"  # what is written; an impression is written from the findings
    seed: Seed = 0
    run_dir: Path | None = None  # runs/<name> under the current folder when absent
    studies: Studies
    policy: PolicySection = PolicySection()
    warmup: Warmup | None = None
    sample: Sample = Sample()
    judges: JudgeOptions = {}
    score: Score = Score()
    pairs: Pairs = Pairs()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    sweep: Sweep = Sweep()
    report: ReportSection = ReportSection()
    quick: dict[str, Any] = {}  # dotted key → value: what --quick changes

    @property
    def training_seed(self) -> int:
        """`train.seed`, or the recipe's: with the first, runs differ in training while data and samples stay."""
        return self.seed if self.train.seed is None else self.train.seed

    @field_validator("run_dir")
    @classmethod
    def _is_a_folder(cls, value: Path | None) -> Path | None:
        """A name that a folder can have, and no file in its way."""
        if value is None:
            return None
        if "\0" in str(value) or any(len(part.encode()) > 255 for part in value.parts) or len(str(value)) > 2000:
            raise ValueError("no folder can be called so")
        if taken := next((p for p in (value, *value.parents) if p.exists() and not p.is_dir()), None):
            raise ValueError(f"{taken} is a file; name a folder")
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """An impression is written from the findings: no image is shown unless the recipe asks for it."""
        if isinstance(value, dict) and value.get("task") == "impression" and isinstance(value.get("studies"), dict):
            value = {**value, "studies": {"max_images": 0, **value["studies"]}}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.pairs.judge not in self.score.judges:
            raise ValueError(f"pairs.judge {self.pairs.judge!r} is not among score.judges {list(self.score.judges)}")
        if self.train.online and self.pairs.feedback:
            raise ValueError(
                f"{self.train.algorithm.type} learns from rewards: remove pairs.feedback, or train on pairs"
            )
        if lost := [j for j in self.evaluate.headline if j not in self.evaluate.judges]:
            raise ValueError(f"evaluate.headline {lost} is not among evaluate.judges {list(self.evaluate.judges)}")
        warmup = self.warmup
        if self.policy.model == "tiny" and (warmup is None or warmup.lora is not None):
            raise ValueError("policy.model is `tiny`, of random weights: add a `warmup:` section, without lora")
        if self.sample.studies == "rest" and (warmup is None or warmup.share == 1):
            raise ValueError("sample.studies is `rest`: set warmup.share below 1, or nothing is left to sample")
        if self.evaluate.untuned and (warmup is None or self.policy.model == "tiny"):
            raise ValueError("evaluate.untuned: there is no model from before a warm-up; remove it")
        if warmup is not None and warmup.lora is not None and warmup.tower.steps:
            raise ValueError("warmup.lora adapts the decoder: set warmup.tower.steps=0")
        if warmup is not None and warmup.lora and self.train.lora:
            self._one_adapter(warmup.lora, self.train.lora)
        return self

    @staticmethod
    def _one_adapter(first: Lora, then: Lora) -> None:
        """`train.lora` continues the adapter that `warmup.lora` makes: refused here, not after the warm-up."""
        if then.dropout:
            raise ValueError(
                "train.lora.dropout must be 0 where an adapter is continued: the reference would be another"
            )
        for name in ("r", "alpha", "dora", "targets"):
            was, now = getattr(first, name), getattr(then, name)
            if now not in (was, "all-linear"):  # all that the adapter has
                raise ValueError(f"train.lora continues warmup.lora's adapter: {name} is {was} there and {now} here")
