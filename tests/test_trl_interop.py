"""Our exported pairs and our checkpoint go into TRL 1.16's DPOTrainer as they are."""

import json
import math

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own imports warn
trl = pytest.importorskip("trl", reason="TRL is not installed: the export is not tried in it")


def test_trl_trains_on_the_exported_pairs(tiny_run, tmp_path):
    from datasets import Dataset
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    rows = [json.loads(line) for line in (tiny_run / "pairs_trl.jsonl").read_text().splitlines()][:4]
    for row in rows:
        row["images"] = [Image.open(tiny_run / path).convert("RGB") for path in row["images"]]
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, max_steps=2, report_to=[], use_cpu=True, bf16=False,
        max_length=None, logging_steps=1, save_strategy="no", gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(tiny_run / "baseline"),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(tiny_run / "baseline"),
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
