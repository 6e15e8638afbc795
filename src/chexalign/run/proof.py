"""A run's proofs of its policies' fast path: one study, once per run folder, model and versions → fast_path.json."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from chexalign.jsonl import read_json, write_json
from chexalign.policies.forward.unwrap import base_model
from chexalign.policies.policy import Policy
from chexalign.policies.prompt import Prompt
from chexalign.policies.proof import disagreement, take_plain_path
from chexalign.progress import say
from chexalign.records import Study
from chexalign.run.folder import Run

FILE = "fast_path.json"


def prove(run: Run, policy: Policy, prompts_of: Callable[[Sequence[Study]], list[Prompt]]) -> None:
    """Compare, or remember the comparison, and take the plain path where the fast one is wrong: one line says so."""
    if not run.path("studies.jsonl").is_file() or not (studies := run.studies("train")):
        return
    path, key = run.path(FILE), _key(policy)
    known = _read(run.trunk / FILE) if run.trunk else {}  # what the run it grows from has proved
    known |= _read(path)
    if key not in known:
        known[key] = _compared(policy, studies[0], prompts_of)
        write_json(path, known)
    found = known[key]
    if why := found["stored"]:
        left = "stored features are" if found["shared"] is None else "stored features and shared prompts are"
        say(f"{found['model']}: {left} not used ({why}); slower, and right")
        take_plain_path(policy, share=found["shared"] is None)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _compared(policy: Policy, study: Study, prompts_of: Callable[[Sequence[Study]], list[Prompt]]) -> dict[str, Any]:
    """What is wrong with stored features on shared prompts, and with these alone; None where nothing is."""
    prompt, tokens = prompts_of([study])[0], policy.completion_ids(study.findings or "None.")
    stored = disagreement(policy, prompt, tokens)
    shared = disagreement(policy, prompt, tokens, stored=False) if stored else None
    kind = type(base_model(policy.model)).__name__
    return {"model": kind, "study_id": study.study_id, "stored": stored, "shared": shared}


def _key(policy: Policy) -> str:
    """A hash of the model's kind and shape, its types and the libraries' versions."""
    base = base_model(policy.model)
    config = {k: v for k, v in base.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    parts = (type(base).__name__, config, base.dtype, policy.scorer.compute_dtype, policy.engine is None)
    versions = (transformers.__version__, torch.__version__, hasattr(policy.model, "peft_config"))
    return hashlib.blake2b(repr((parts, versions)).encode(), digest_size=12).hexdigest()
