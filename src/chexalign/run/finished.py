"""What a finished run is for: write a report with its aligned policy, and export that policy as an ordinary checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import GenerationConfig

from chexalign.errors import RecipeError, WorkError
from chexalign.jsonl import read_json, write_json
from chexalign.policies.policy import Policy
from chexalign.policies.presets import wording_of
from chexalign.policies.prompt import build_prompt
from chexalign.policies.trainable import make_trainable
from chexalign.records import Study
from chexalign.run.card import model_card
from chexalign.run.folder import finished_run
from chexalign.run.policies import open_policy


def export(folder: Path, to: Path | None = None) -> Path:
    """The aligned policy as a plain safetensors checkpoint (adapters merged) with its processor and a model card."""
    run, target = finished_run(folder), to or folder / "export"
    if target.exists() and not (target / "config.json").is_file() and any(target.iterdir()):
        raise RecipeError(f"{target} is not empty and holds no checkpoint; choose another folder with --to DIR")
    policy = open_policy(run, "aligned")
    make_trainable(policy, (), None, run.recipe.seed)  # an adapter becomes part of its base
    policy.model.generation_config = as_measured(policy)
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    policy.save(fresh)
    for_older_transformers(fresh)
    (fresh / "README.md").write_text(model_card(run, policy, target), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def as_measured(policy: Policy) -> GenerationConfig:
    """The decoding that the results are of: greedy, nothing added to the model's own log-probs, ending where ours does.

    A published checkpoint may bring a repetition penalty, top_k or top_p, which `generate` would apply unasked.
    """
    return GenerationConfig(
        do_sample=False,
        eos_token_id=sorted(policy.stop_ids),
        pad_token_id=policy.tokenizer.pad_token_id,
        bos_token_id=policy.tokenizer.bos_token_id,
    )


def for_older_transformers(folder: Path) -> None:
    """Let transformers 4.57 open what 5 has saved: it reads a tie of the embeddings in text_config too, and it does not
    know the tokenizer class that 5 writes for any tokenizer.json."""
    file = folder / "config.json"
    config = read_json(file)
    if isinstance(config.get("text_config"), dict):
        config["text_config"]["tie_word_embeddings"] = config.get("tie_word_embeddings", False)
        write_json(file, config)
    file = folder / "tokenizer_config.json"
    if file.is_file() and (tokenizer := read_json(file)).get("tokenizer_class") == "TokenizersBackend":
        write_json(file, tokenizer | {"tokenizer_class": "PreTrainedTokenizerFast"})


def write(folder: Path, findings: str, indication: str, images: list[Path]) -> str:
    """What the aligned policy writes about one study, greedily."""
    run = finished_run(folder)
    if run.recipe.task == "impression" and not findings.strip():
        raise RecipeError("this run writes impressions from findings: give them with --findings TEXT")
    if run.recipe.studies.max_images and not images:
        raise RecipeError("this run's policy looks at images: give one with --image FILE")
    if lost := next((i for i in images if not i.is_file()), None):
        raise RecipeError(f"--image {lost}: no such file")
    if len({i.parent.resolve() for i in images}) > 1:
        raise RecipeError("--image: put the images of one study into one folder")
    shown = tuple((i.name, "") for i in images)
    study = Study("asked", "asked", "test", shown, indication=indication, findings=findings)
    policy = open_policy(run, "aligned")
    root = images[0].parent if images else Path()
    prompt = build_prompt(study, wording_of(run.recipe), policy.processor, root, run.recipe.studies.max_images)
    (answer,) = policy.generate([prompt], 1, 0.0, run.recipe.sample.max_new_tokens)[0]
    text = policy.text(answer.tokens)
    if not text:
        raise WorkError("the policy wrote nothing")
    return text
