"""The model card of an export: what it is, what it was trained on and how, what was measured, its limits, what it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import transformers

from chexalign.policies.policy import Policy
from chexalign.policies.presets import wording_of
from chexalign.results import SIDES, Block, Results
from chexalign.run.folder import Run

FEWEST_STUDIES = 10  # below these no interval is given, as on the run's page; our choice
CARD = """# {name}

Aligned by chexalign (recipe `{name}`, task {task}, {algorithm}). Not for clinical use.

```python
from transformers import {kind}, {processor}
model = {kind}.from_pretrained("{folder}")
processor = {processor}.from_pretrained("{folder}")
```

Written by transformers {version}: use that version or a later 5.x. Older ones may not know its classes by these names.

It was trained on this prompt, in the user's turn of its chat template{system}:

```
{words}
```

## Data and settings

{settings}

## Results

{results}

## Limits

{limits}
"""


def model_card(run: Run, policy: Policy, target: Path) -> str:
    """The card as Markdown. Results and limits are those of the run's results.json, and it says so where there is none."""
    recipe, asked = run.recipe, wording_of(run.recipe)
    seeing = policy.processor is not policy.tokenizer
    words = [w for w in (asked.findings_with_indication, asked.findings) if w]
    found = run.results() if run.path("results.json").is_file() else None
    return CARD.format(
        name=recipe.name,
        task=recipe.task,
        algorithm=recipe.train.algorithm.type,
        kind="AutoModelForImageTextToText" if seeing else "AutoModelForCausalLM",
        processor="AutoProcessor" if seeing else "AutoTokenizer",
        folder=target,
        version=transformers.__version__,
        words="\n```\nor, without an indication:\n```\n".join(words),
        system=f", after the system turn {asked.system!r}" if asked.system else "",
        settings="\n".join(f"- {name}: {value}" for name, value in _settings(run)),
        results="Not evaluated." if found is None else "\n".join(_results(found)),
        limits="\n".join(f"- {line}" for line in _limits(found)),
    )


def _settings(run: Run) -> Iterator[tuple[str, object]]:
    recipe = run.recipe
    train, drawn = recipe.train, "all" if recipe.sample.limit is None else f"{recipe.sample.limit} drawn"
    yield "starts from", f"`{Path(recipe.policy.model).name}`" + (", warmed up" if recipe.warmup else "")
    yield "studies", f"source `{recipe.studies.source}`, {drawn} of the training split"
    yield "samples", f"{recipe.sample.n} a study at temperature {recipe.sample.temperature:g}"
    yield "algorithm", f"`{train.algorithm.model_dump(mode='json')}`"
    size = f"{train.epochs} epoch(s), batch {train.batch_size}, learning rate {train.lr:g} ({train.schedule})"
    yield "training", f"{size}, frozen: {', '.join(train.freeze) or 'nothing'}, LoRA: {'yes' if train.lora else 'no'}"
    yield "computed in", recipe.policy.dtype
    yield "seed", recipe.seed


def _results(found: Results) -> Iterator[str]:
    """A table per decoding: the headline's metrics of both models and their paired difference."""
    for title, block in (("temperature 1", found.overall), ("greedy decoding", found.subsets.get("greedy"))):
        if block is None:
            continue
        level = f"{100 * (found.level or 0.9):.0f} % bootstrap interval"
        yield f"{block.n_studies} test studies, {title}; mean [{level}]:\n"
        yield "| metric | before | after | difference |\n|---|---|---|---|"
        for metric in found.headline:
            yield f"| {metric} | {' | '.join(_cell(block, side, metric) for side in SIDES)} |"
        yield ""


def _cell(block: Block, side: str, metric: str) -> str:
    cell = block.side(side).get(metric) or {}
    mean, low, high, n = (cell.get(name) for name in ("mean", "low", "high", "n"))
    if mean is None:
        return "not scored"
    sure = low is not None and high is not None and (n is None or n >= FEWEST_STUDIES)
    return f"{mean:.3f}" + (f" [{low:.3f}, {high:.3f}]" if sure else "")


def _limits(found: Results | None) -> Iterator[str]:
    yield "For research. No one has shown that its reports are safe to act on."
    yield "Its scores are those of automatic judges. Other hospitals, devices and patients were not measured."
    yield from (() if found is None else found.warnings)
