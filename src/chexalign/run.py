"""The run folder: what was run, with what, how far it got. Stage order, resume, and the manifest that explains it all."""

from __future__ import annotations

import fcntl
import importlib
import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chexalign import __version__
from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_json, write_json
from chexalign.progress import say
from chexalign.recipe import Recipe

# stage → (function, recipe sections it reads, the file that says it is finished). Order is the order of the road; the
# page is no stage of it: it reads what these wrote and can be made again at any time.
STAGES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "studies": ("chexalign.studies:make_studies", ("seed", "studies"), "studies.jsonl"),
    "warmup": ("chexalign.train.warmup:warm_up", ("policy", "warmup"), "baseline/config.json"),
    "sample": ("chexalign.sample:sample_completions", ("sample",), "completions.jsonl"),
    "score": ("chexalign.score:score_completions", ("score",), "verdicts.jsonl"),
    "pairs": ("chexalign.pairs:make_pairs", ("pairs",), "pairs.jsonl"),
    "train": ("chexalign.train.align:align", ("train",), "policy/config.json"),
    "evaluate": ("chexalign.evaluate:evaluate", ("evaluate",), "results.json"),
}
PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy", "pydantic")


@dataclass
class StageResult:
    """Rows in, rows out and why rows were lost; `extra` is any short fact worth keeping in the manifest."""

    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    extra: dict[str, Any] | None = None


@dataclass
class Run:
    recipe: Recipe
    dir: Path
    manifest: dict[str, Any]

    def path(self, name: str) -> Path:
        return self.dir / name

    def save_manifest(self) -> None:
        write_json(self.path("manifest.json"), self.manifest)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "chexalign": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _git_commit() -> str | None:
    """The source checkout's commit (with + when the tree is changed); None when installed from a wheel."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _sections(recipe: Recipe, stage: str) -> dict[str, Any]:
    """The recipe settings a stage depends on: its own and those of all stages before it."""
    wanted: list[str] = []
    for name, (_, sections, _) in STAGES.items():
        wanted += sections
        if name == stage:
            break
    full = recipe.model_dump(mode="json")
    return {k: full[k] for k in wanted}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else key)
    return flat


def open_run(recipe: Recipe) -> Run:
    """Make or reopen the run folder. Raises RecipeError if it belongs to another recipe or to other settings."""
    from chexalign.data import load_source
    from chexalign.judges import load as load_judge

    load_source(recipe.studies.source)
    for name in {*recipe.score.judges, *recipe.evaluate.judges}:
        load_judge(name)
    folder = recipe.run_dir or Path("runs") / recipe.name
    path = folder / "manifest.json"
    manifest: dict[str, Any]
    if not path.exists():
        if folder.exists() and any(p.name != ".lock" for p in folder.iterdir()):
            raise RecipeError(f"{folder} is not empty and holds no manifest.json; choose another with run_dir=DIR")
        manifest = {"chexalign": __version__, "stages": {}}
    else:
        manifest = read_json(path)
        _check_same(recipe, folder, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    manifest |= {
        "recipe": recipe.model_dump(mode="json"),
        "versions": _versions(),
        "git": _git_commit(),
        "seeds": {"recipe": recipe.seed},
        "judges": {n: load_judge(n).version for n in sorted({*recipe.score.judges, *recipe.evaluate.judges})},
    }
    run = Run(recipe, folder, manifest)
    run.save_manifest()
    return run


def _check_same(recipe: Recipe, folder: Path, manifest: dict[str, Any]) -> None:
    """Settings that a started stage used must not have changed: its rows would lie about how they were made."""
    old_name = manifest["recipe"]["name"]
    remedy = f"choose another folder with run_dir=DIR, or delete {folder} to start again"
    if old_name != recipe.name:
        raise RecipeError(f"{folder} belongs to recipe {old_name!r}, not {recipe.name!r}; {remedy}")
    for stage in manifest["stages"]:
        old, new = (_flat(x) for x in (manifest["stages"][stage]["settings"], _sections(recipe, stage)))
        if changed := [k for k in {**old, **new} if old.get(k) != new.get(k)]:
            what = "; ".join(f"{k} was {old.get(k)!r}, is now {new.get(k)!r}" for k in changed[:3])
            raise RecipeError(f"{folder}: stage {stage!r} ran with other settings ({what}); {remedy}")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process per run folder: two would write each row twice."""
    with open(folder / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkError(f"another process is working in {folder}; wait for it or stop it") from None
        yield


def run_stage(run: Run, name: str) -> None:
    """Run one stage, or resume it, or say that it is finished. Updates the manifest before and after."""
    target, _, product = STAGES[name]
    stages = run.manifest["stages"]
    if stages.get(name, {}).get("finished") and run.path(product).exists():
        say(f"{name}: already finished ({run.path(product)})")
        return
    spent = stages.get(name, {}).get("seconds", 0.0)
    settings = _sections(run.recipe, name)
    stages[name] = {"settings": settings, "git": run.manifest["git"], "finished": None, "seconds": spent}
    run.save_manifest()
    module, _, function = target.partition(":")
    start = time.monotonic()
    result: StageResult = getattr(importlib.import_module(module), function)(run)
    stages[name] |= {
        "rows_in": result.rows_in,
        "rows_out": result.rows_out,
        "dropped": result.dropped,
        **({"extra": result.extra} if result.extra else {}),
        "seconds": round(spent + time.monotonic() - start, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    run.save_manifest()
    say(f"{name}: {result.rows_in} in, {result.rows_out} out, {stages[name]['seconds']:.1f} s → {run.path(product)}")


def run_stages(recipe: Recipe, names: list[str]) -> Run:
    """Open the run folder, lock it, and run the named stages in the order of the road."""
    run = open_run(recipe)
    with _lock(run.dir):
        for name in STAGES:
            if name in names and not (name == "warmup" and recipe.warmup is None):
                run_stage(run, name)
    return run
