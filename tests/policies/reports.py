"""A user's own reports: eight small studies with two images each, and the recipe that walks the road with them."""

import json
from pathlib import Path

from chexalign.recipe.files import load_recipe
from chexalign.recipe.recipe import Recipe

FINDINGS = [
    "There is a small left pleural effusion.",
    "The heart is normal in size.",
    "No pneumothorax.",
    "Clear lungs.",
]
FAST = [
    "seed=1", "warmup=null", "studies.source=jsonl", "studies.val_share=0.25", "studies.test_share=0.25", "studies.n=null",
    "sample.n=3", "sample.max_new_tokens=6", "score.judges=[rouge_l]", "pairs.judge=rouge_l", "pairs.rule=reference_worst",
    "train.epochs=1", "train.batch_size=2", "train.lr=1e-3", "evaluate.judges=[rouge_l]", "evaluate.headline=[rouge_l]",
    "evaluate.bootstrap=20",
]  # fmt: skip
ONLINE = [
    "train.reward=rouge_l", "train.watch={judge: bleu4, every: 1}", "train.rollout={n: 3, max_new_tokens: 6, rounds: 2}"
]  # fmt: skip


def write_reports(folder: Path, images: Path) -> Path:
    """studies.jsonl beside links to the images."""
    folder.mkdir()
    with (folder / "studies.jsonl").open("w") as file:
        for i in range(8):
            paths = [f"{i}.png", f"{(i + 1) % 8}.png"]
            for path in paths[:1]:
                (folder / path).write_bytes((images / path).read_bytes())
            row = {
                "study_id": f"s{i}",
                "patient_id": f"p{i}",
                "findings": FINDINGS[i % 4],
                "indication": "cough" * (i % 2),
            }
            views = ("frontal", "lateral")
            row["images"] = [{"path": p, "view": v} for p, v in zip(paths, views, strict=True)]
            row["split"] = "train" if i < 5 else "val" if i < 6 else "test"
            file.write(json.dumps(row) + "\n")
    return folder


def recipe_for(model: Path, reports: Path, run: Path, algorithm: str, dtype: str, lora: bool, *more: str) -> Recipe:
    """The recipe of one cell: family × algorithm × full or LoRA × type."""
    settings = [f"studies.root={reports}", f"run_dir={run}", f"policy.model={model}", f"policy.dtype={dtype}"]
    settings += [f"train.algorithm={{type: {algorithm}}}"]
    settings += ["train.lora={r: 2, alpha: 4}"] if lora else []
    online = algorithm in ("grpo", "orapo", "valor", "online_dpo", "online_kto")
    return load_recipe("tiny", [*FAST, *settings, *(ONLINE if online else []), *more])
