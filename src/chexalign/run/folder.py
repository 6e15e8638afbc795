"""The run folder: what was run, with what, how far it got. The order of the stages and the manifest that explains it all."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chexalign import __version__, processes
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_json, read_records, write_json
from chexalign.recipe.recipe import Recipe
from chexalign.records import Completion, Pair, Study, Verdict
from chexalign.results import Results
from chexalign.run.judges import judges_of, with_visual_defaults

LABELLED = "studies_labelled.jsonl"  # images with labels and no report, where a source brings them


@dataclass(frozen=True)
class Stage:
    """One stage: what runs it, which sections of the recipe make it stale, and which files it leaves."""

    function: str  # module:function
    reads: tuple[str, ...]  # recipe sections, beside those of the stages before it
    product: str  # the file that says it is finished
    writes: tuple[str, ...]  # all it may leave in the run folder, finished or not


# In the order of the road. The page is no stage of it: it reads what these wrote and can be made again at any time.
STAGES: dict[str, Stage] = {
    "studies": Stage(
        "chexalign.stages.studies:make_studies",
        ("task", "seed", "studies"),
        "studies.jsonl",
        (
            "studies.jsonl",
            LABELLED,
            "studies_dropped.txt",
            "studies_counts.json",
            "studies_doubts.txt",
            "images_checked.jsonl",
            "images",
        ),
    ),
    "warmup": Stage(
        "chexalign.stages.warmup:warm_up",
        ("policy", "warmup"),
        "baseline/config.json",
        ("baseline", "warmup", "features", "expert"),
    ),
    "sample": Stage(
        "chexalign.stages.sample:sample_completions", ("sample",), "completions.jsonl", ("completions.jsonl",)
    ),
    "score": Stage("chexalign.stages.score:score_completions", ("score",), "verdicts.jsonl", ("verdicts.jsonl",)),
    "pairs": Stage(
        "chexalign.stages.pairs:make_pairs",
        ("pairs",),
        "pairs.jsonl",
        ("pairs.jsonl", "pairs_trl.jsonl", "pairs_summary.json", "reference_logps.jsonl"),
    ),
    "train": Stage(
        "chexalign.stages.train:align",
        ("train",),
        "policy/config.json",
        ("policy", "train", "train_log.jsonl", "stages"),
    ),
    "evaluate": Stage(
        "chexalign.stages.evaluate:evaluate",
        ("evaluate", "report"),
        "results.json",
        ("results.json", "evaluation", "examples", "examples.json"),
    ),
}
# What the stages before `train` write: the branches of a sweep read it from the run they grow from.
SHARED = {name for stage in list(STAGES)[: list(STAGES).index("train")] for name in STAGES[stage].writes}
PAIRING = ("sample", "score", "pairs")  # what online training does without
TOGETHER = ("warmup", "train")  # the stages that several processes can run


@dataclass
class StageResult:
    """Rows in, rows out and why rows were lost; `extra` is any short fact worth keeping in the manifest."""

    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    extra: dict[str, Any] | None = None


@dataclass
class Run:
    """A recipe in its folder. Stages ask it for records; `path` is for files that only one stage knows."""

    recipe: Recipe
    dir: Path
    manifest: dict[str, Any]
    trunk: Path | None = None  # the folder of the run that this one, an entry of a sweep, is a branch of
    stages: Mapping[str, Stage] = field(default_factory=lambda: STAGES)

    def path(self, name: str) -> Path:
        """Where a stage reads or writes `name`: a branch finds what comes before training in the run it grows from."""
        return (self.trunk if self.trunk and name.partition("/")[0] in SHARED else self.dir) / name

    def studies(self, split: str | None = None) -> list[Study]:
        """The studies of studies.jsonl, or those of one split, in file order. Raises WorkError where the file is missing."""
        studies = read_records(self.path("studies.jsonl"), Study)
        return [s for s in studies if split in (None, s.split)]

    def labelled_studies(self) -> list[Study]:
        """The studies of training and validation with labels and no report; [] where no source brings any."""
        path = self.path(LABELLED)
        return read_records(path, Study) if path.exists() else []

    def studies_by_id(self) -> dict[str, Study]:
        """Studies of all splits."""
        return {s.study_id: s for s in self.studies()}

    def completions(self, name: str = "completions") -> list[Completion]:
        """The finished completions of `name`.jsonl: the sampled ones, or those of an evaluation."""
        return read_records(self.path(f"{name}.jsonl"), Completion)

    def verdicts(self, name: str = "verdicts") -> list[Verdict]:
        """Of `name`.jsonl, abstentions included. Raises WorkError before anything was scored."""
        return read_records(self.path(f"{name}.jsonl"), Verdict)

    def pairs(self) -> list[Pair]:
        """The preference pairs that training learns from, feedback's among them."""
        return read_records(self.path("pairs.jsonl"), Pair)

    def results(self) -> Results:
        """results.json. Raises WorkError where it is missing or is none."""
        path = self.path("results.json")
        if not path.exists():
            raise WorkError(f"{path} is missing; run stage evaluate first")
        try:
            return Results.from_dict(read_json(path))
        except ValueError as error:
            raise WorkError(f"{path}: {error}; delete it and run stage evaluate again") from error

    def test_studies(self) -> list[Study]:
        """The studies that stage `evaluate` takes, in file order."""
        return self.studies("test")[: self.recipe.evaluate.limit]

    def save_manifest(self) -> None:
        """Replaces manifest.json in one step; only the main process writes."""
        if processes.is_main():
            write_json(self.path("manifest.json"), self.manifest)


def settings_of(run: Run, stage: str) -> dict[str, Any]:
    """The recipe settings a stage depends on: its own and those of all stages before it."""
    wanted: list[str] = []
    for name, described in run.stages.items():
        wanted += described.reads
        if name == stage:
            break
    full = run.recipe.model_dump(mode="json")
    return {k: full[k] for k in wanted}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else key)
    return flat


def open_run(recipe: Recipe) -> Run:
    """Make or reopen the run folder, reading only. Raises RecipeError if it belongs to another recipe or other settings."""
    from chexalign.data import check_sources

    check_sources(recipe.studies)
    folder = recipe.run_dir or Path("runs") / recipe.name
    recipe = with_visual_defaults(recipe, folder)
    judges_of(recipe)
    path, manifest = folder / "manifest.json", {"chexalign": __version__, "stages": {}}
    if path.exists():
        manifest = read_json(path)
    elif folder.is_dir() and any(p.name != ".lock" for p in folder.iterdir()):
        raise RecipeError(f"{folder} is not empty and holds no manifest.json; choose another with run_dir=DIR")
    folder.mkdir(parents=True, exist_ok=True)
    return Run(recipe, folder, manifest)


def check_same(run: Run) -> None:
    """Settings that a started stage used must not have changed: its rows would lie about how they were made."""
    other = f"choose another folder with run_dir=DIR, or delete {run.dir} to start again"
    if (old_name := run.manifest.get("recipe", {}).get("name", run.recipe.name)) != run.recipe.name:
        raise RecipeError(f"{run.dir} belongs to recipe {old_name!r}, not {run.recipe.name!r}; {other}")
    again = "choose another folder with run_dir=DIR, or `chexalign run … --restart {}` to remove what it and later stages wrote"
    for stage in run.manifest["stages"]:
        old, new = _flat(run.manifest["stages"][stage]["settings"]), _flat(settings_of(run, stage))
        if changed := [k for k in {**old, **new} if old.get(k) != new.get(k)]:
            what = "; ".join(f"{k} was {old.get(k)!r}, is now {new.get(k)!r}" for k in changed[:3])
            raise RecipeError(
                f"{run.dir}: stage {stage!r} ran with other settings ({what}); "
                + (other if run.trunk else again.format(stage))
            )


def leftovers(run: Run, stage: str) -> list[Path]:
    """What a stage has left in the folder, finished or not."""
    names = run.stages[stage].writes
    return [p for n in names for p in (run.path(n), run.path(f"{n}.part"), run.path(f".{n}.new")) if p.exists()]


def forget(run: Run, first: str) -> None:
    """Remove what `first` and all later stages wrote, and their manifest entries."""
    if first not in STAGES:
        raise RecipeError(f"--restart: no stage {first!r}; there are {', '.join(STAGES)}")
    order = list(STAGES)
    for name in order[order.index(first) :]:
        for path in leftovers(run, name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        run.manifest["stages"].pop(name, None)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One process per run folder: two would write each row twice."""
    with open(folder / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkError(f"another process is working in {folder}; wait for it or stop it") from None
        yield


def finished_run(folder: Path) -> Run:
    """A run from its folder alone. Raises RecipeError where there is none, or none that has trained."""
    if not (folder / "manifest.json").is_file():
        raise RecipeError(f"{folder} holds no manifest.json: give a run's folder, for example runs/demo")
    manifest = read_json(folder / "manifest.json")
    try:
        recipe = Recipe.model_validate(manifest.get("recipe"))
    except ValidationError as error:
        raise RecipeError(f"{folder}/manifest.json: its recipe is not one of this version of chexalign") from error
    return Run(recipe, folder, manifest)
