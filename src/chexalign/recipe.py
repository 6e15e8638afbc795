"""A recipe is one YAML file that names a whole run: typed, closed, with defaults that are the vetted settings."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chexalign.errors import RecipeError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


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


class PolicySection(Section):
    """The model to align: `tiny` (built here, needs a warm-up), a local checkpoint folder, or a hub id."""

    model: str = "tiny"
    tiny: TinyPolicy = TinyPolicy()
    prompt: str = "Write the findings of this chest X-ray."  # may hold {indication} and {comparison}
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    download: bool = False  # no network unless the recipe says so
    trust_remote_code: bool = False  # no remote code unless the recipe says so


class Phase(Section):
    """One warm-up phase of a fixed number of optimizer steps; stops early when the validation loss stops falling."""

    steps: Annotated[int, Field(ge=0)]
    lr: Rate = 2e-3
    batch_size: Count = 32
    micro_batch_size: Count = 16  # studies per forward pass, of like length
    eval_every: Count = 100  # steps between validation losses
    patience: Count = 5  # validations without a better loss before stopping


class Warmup(Section):
    """How the tiny policy becomes a baseline: tower on finding labels, optionally finding lists, then reports (SFT)."""

    tower: Phase = Phase(steps=250, batch_size=64)
    finding_lists: Phase = Phase(steps=0)
    reports: Phase = Phase(steps=700)
    save_every: Count = 200  # steps between checkpoints


class Sample(Section):
    """CheXalign's defaults: four draws per training study at temperature 1."""

    n: Count = 4
    temperature: Rate = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 512
    batch_size: Count = 16  # studies per batch; each brings n samples
    limit: Count | None = None  # how many training studies; all when absent


class Score(Section):
    judges: tuple[str, ...] = ("finding_f1", "chexpert_rule_f1", "rouge_l", "bleu4")


class Pairs(Section):
    judge: str = "finding_f1"  # one of score.judges
    min_margin: Annotated[float, Field(ge=0)] = (
        1e-8  # a pair is kept when best − worst exceeds this (CheXalign's release)
    )


class Sft(Section):
    """Supervised fine-tuning on the chosen texts."""

    type: Literal["sft"] = "sft"


class Dpo(Section):
    """DPO, optionally with an NLL term on the chosen report (mean per token)."""

    type: Literal["dpo"] = "dpo"
    beta: Rate = 0.1
    nll: Annotated[float, Field(ge=0)] = 0.0


class LcDpo(Section):
    """Length-controlled DPO."""

    type: Literal["lc_dpo"] = "lc_dpo"
    beta: Rate = 0.05
    alpha: Annotated[float, Field(ge=0)] = 0.01


class Ipo(Section):
    """IPO on summed log-probs, or on per-token averages (the CheXalign release and TRL)."""

    type: Literal["ipo"] = "ipo"
    tau: Rate = 1.0
    average_log_prob: bool = True


class Orpo(Section):
    """ORPO: no reference model."""

    type: Literal["orpo"] = "orpo"
    lam: Annotated[float, Field(ge=0)] = 1.0


Algorithm = Annotated[Sft | Dpo | LcDpo | Ipo | Orpo, Field(discriminator="type")]
ALGORITHM_NAMES = tuple(get_args(t.model_fields["type"].annotation)[0] for t in get_args(get_args(Algorithm)[0]))


class Train(Section):
    """The paper's settings unless a recipe says otherwise: one epoch, cosine with 10 % warm-up, tower frozen."""

    algorithm: Algorithm = Dpo()
    epochs: Count = 1
    lr: Rate = 1e-6
    batch_size: Count = 32  # pairs per optimizer step, over all processes
    micro_batch_size: Count = 16  # pairs per forward pass, of like length; the update does not depend on it
    warmup_share: Share = 0.1
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Rate = 1.0
    freeze: tuple[Literal["tower", "projector", "decoder"], ...] = ("tower",)
    save_every: Count = 50  # optimizer steps between checkpoints

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`algorithm: dpo` is short for `algorithm: {type: dpo}`."""
        if isinstance(value, dict) and isinstance(value.get("algorithm"), str):
            value = {**value, "algorithm": {"type": value["algorithm"]}}
        return value


class Evaluate(Section):
    judges: tuple[str, ...] = ("chexpert_rule_f1", "finding_f1", "rouge_l", "bleu4", "lc_finding_f1")
    headline: tuple[str, ...] = ("chexpert_rule_f1", "finding_f1")
    limit: Count | None = None  # how many test studies; all when absent
    greedy: bool = True  # greedy decoding beside temperature 1
    shuffled_images: bool = True  # control: the aligned policy with another study's images
    bootstrap: Count = 1000
    level: Annotated[float, Field(gt=0, lt=1)] = 0.9


class ReportSection(Section):
    examples: Annotated[int, Field(ge=0)] = 12


class Recipe(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: int = 0
    run_dir: Path | None = None  # runs/<name> under the current folder when absent
    studies: Studies
    policy: PolicySection = PolicySection()
    warmup: Warmup | None = None
    sample: Sample = Sample()
    score: Score = Score()
    pairs: Pairs = Pairs()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    report: ReportSection = ReportSection()
    quick: dict[str, Any] = {}  # dotted key → value: what --quick changes

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.pairs.judge not in self.score.judges:
            raise ValueError(f"pairs.judge {self.pairs.judge!r} is not among score.judges {list(self.score.judges)}")
        if lost := [j for j in self.evaluate.headline if j not in self.evaluate.judges]:
            raise ValueError(f"evaluate.headline {lost} is not among evaluate.judges {list(self.evaluate.judges)}")
        if self.policy.model == "tiny" and self.warmup is None:
            raise ValueError("policy.model is `tiny`, which starts from random weights: add a `warmup:` section")
        return self


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 5e-7 as text; this one reads it as the number it is. A key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(k, deep=True) for k, _ in node.value]
        if twice := {str(k) for k in keys if keys.count(k) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"key given twice: {', '.join(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def recipe_folders() -> list[Path]:
    """Where recipes known by name live: ./recipes, the source checkout, the installed package."""
    here = Path(__file__).resolve().parent
    found = [Path("recipes"), here.parent.parent / "recipes", here / "_recipes"]
    return [p for p in found if p.is_dir()]


def find_recipe(name_or_path: str) -> Path:
    """A recipe's file from its path or its name. Raises RecipeError naming the nearest known recipe."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    known = {p.stem: p for folder in reversed(recipe_folders()) for p in sorted(folder.glob("*.yaml"))}
    stem = path.stem if path.suffix in (".yaml", ".yml") else name_or_path
    if stem in known and (path.parent == Path(".") or path.parent.name == "recipes"):
        return known[stem]
    raise RecipeError(f"no recipe {name_or_path!r}; {_nearest(stem, list(known))}")


def _nearest(word: str, options: list[str]) -> str:
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(options)) or 'none'}"


def load_recipe(name_or_path: str, overrides: list[str] | None = None, quick: bool = False) -> Recipe:
    """Read a recipe, apply its quick form and `key=value` overrides, and check it. Raises RecipeError in one line."""
    path = find_recipe(name_or_path)
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of sections, not {type(raw).__name__}")
    if quick and not raw.get("quick"):
        raise RecipeError(f"{path}: this recipe defines no quick form; run it without --quick")
    for key, value in (raw.get("quick") or {}).items() if quick else ():
        _assign(raw, key, value, path)
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"{text!r}: overrides are written key=value, for example sample.n=2")
        try:
            _assign(raw, key.strip(), parse_yaml(value), path)
        except yaml.YAMLError as error:
            raise RecipeError(f"{text!r}: {' '.join(str(error).split())}") from error
    return build_recipe(raw, str(path))


def _assign(raw: dict[str, Any], dotted: str, value: Any, path: Path) -> None:
    *parents, last = dotted.split(".")
    node = raw
    for name in parents:
        child = node.setdefault(name, {})
        if isinstance(child, str) and name == "algorithm":  # the short form, about to get a setting
            child = node[name] = {"type": child}
        if child is None:
            child = node[name] = {}
        if not isinstance(child, dict):
            raise RecipeError(f"{path}: {dotted}: {name} is not a section")
        node = child
    node[last] = value


def build_recipe(raw: dict[str, Any], where: str) -> Recipe:
    """Check a parsed recipe. Raises RecipeError with one line naming the wrong key and the nearest right one."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    loc = [str(p) for p in problem["loc"] if str(p) not in ALGORITHM_NAMES or p == problem["loc"][-1]]
    dotted = ".".join(loc)
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(problem["loc"][:-1])
        elsewhere = [k for k in all_keys() if k.split(".")[-1] == loc[-1]]
        hint = f"did you mean {elsewhere[0]!r}?" if elsewhere else _nearest(loc[-1], fields)
        return f"unknown key {dotted!r}; {hint}"
    if problem["type"] == "missing":
        return f"key {dotted!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{dotted}: {message} (got {problem['input']!r})" if dotted else message


def _fields_at(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in loc:
        if part in ALGORITHM_NAMES:
            model = next(m for m in get_args(get_args(Algorithm)[0]) if m.model_fields["type"].default == part)
            continue
        annotation = model.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        model = next((m for m in options if isinstance(m, type) and issubclass(m, Section)), None)
        if model is None:
            model = Recipe if part != "algorithm" else Dpo
    return list(model.model_fields)


def all_keys() -> list[str]:
    """Every dotted recipe key, for suggestions and the docs."""
    keys = []
    for name, info in Recipe.model_fields.items():
        options = [info.annotation, *get_args(info.annotation)]
        section = next((m for m in options if isinstance(m, type) and issubclass(m, Section)), None)
        keys += [f"{name}.{k}" for k in section.model_fields] if section else [name]
    return keys
