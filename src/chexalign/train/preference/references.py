"""Reference log-probs: the sampler's own, or computed once before training and kept by content.

Before the first update the policy is its own reference, so one pass of it gives what is missing. The file holds one line
per completion of a prompt and names neither a run nor a hyper-parameter: every run of a sweep reads and extends one file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from chexalign import processes
from chexalign.errors import WorkError
from chexalign.jsonl import read_lines
from chexalign.policies import adapters
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.progress import progress
from chexalign.train.preference.scoring_task import Example, ScoringTask

CHECKED_PAIRS = 64  # pairs whose reference is recomputed before training

Cut = Callable[[Sequence[Example]], list[list[Example]]]  # examples → those of each forward pass, over all processes


def content_key(prompt: Prompt, tokens: Sequence[int], dtype: str) -> str:
    """The name of one completion of one prompt, computed in one type."""
    content = json.dumps([dtype, prompt.text, prompt.images, list(tokens)])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def with_references(policy: Policy, examples: Sequence[Example], path: Path, dtype: str, cut: Cut) -> list[Example]:
    """The examples with every unknown (None) reference log-prob filled in, from `path` or by one pass of the policy."""
    known = _load(path)
    wanted: dict[Prompt, dict[tuple[int, ...], None]] = {}
    for e in examples:
        for tokens, value in zip(e.completions, e.ref_logps, strict=True):
            if value is None and content_key(e.prompt, tokens, dtype) not in known:
                wanted.setdefault(e.prompt, {})[tokens] = None
    if wanted:
        known |= _compute(policy, cut([Example(p, tuple(group)) for p, group in wanted.items()]), path, dtype)

    def filled(e: Example) -> tuple[float, ...]:
        given = zip(e.completions, e.ref_logps, strict=True)
        return tuple(known[content_key(e.prompt, t, dtype)] if v is None else v for t, v in given)

    return [replace(e, ref_logps=filled(e)) for e in examples]


def check_references(examples: Sequence[Example], task: ScoringTask, cut: Cut) -> None:
    """Before any update policy and reference agree: recompute evenly spaced pairs and compare with what is stored."""
    with torch.no_grad():
        for batch in cut(examples[:: math.ceil(len(examples) / CHECKED_PAIRS)]):
            task.check_first(task.module(*task.inputs(batch)), batch)


def _compute(policy: Policy, batches: Sequence[Sequence[Example]], path: Path, dtype: str) -> dict[str, float]:
    """Score a batch at a time, shared by the processes; the main one keeps each on the disk before the next."""
    found: dict[str, float] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    reference = policy.reference() if adapters.has_adapter(policy.model) else nullcontext()
    total = sum(map(len, batches))
    with torch.no_grad(), reference, progress("reference log-probs", total, "prompts") as ticker:
        for batch in batches:
            rows = _score(policy, batch[processes.rank() :: processes.count()], dtype)
            if processes.count() > 1:
                rows = gather_object(rows)
            if processes.is_main():
                with open(path, "a", encoding="utf-8") as handle:
                    handle.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
                    handle.flush()
                    os.fsync(handle.fileno())
            found |= {row["key"]: row["logp"] for row in rows}
            ticker.advance(len(batch))
    return found


def _score(policy: Policy, batch: Sequence[Example], dtype: str) -> list[dict[str, Any]]:
    if not batch:
        return []
    values = policy.token_logps([e.prompt for e in batch], [e.completions for e in batch])
    return [
        {"key": content_key(e.prompt, tokens, dtype), "logp": float(logps.sum())}
        for e, scored in zip(batch, values, strict=True)
        for tokens, logps in zip(e.completions, scored, strict=True)
    ]


def _load(path: Path) -> dict[str, float]:
    """What is stored. A last line torn by a crash is cut off; any other bad line is an error."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
    known = {}
    for number, row in read_lines(path):
        if isinstance(row, str) or set(row) != {"key", "logp"} or not isinstance(row["logp"], float):
            raise WorkError(f"{path}:{number}: not a stored reference log-prob; delete the file, it is computed again")
        known[row["key"]] = row["logp"]
    return known
