"""A small contrastive expert for the judge `visual`, where no published one can be had: SigLIP's classes, trained here.

For each image i of a batch, texts j, and P(i) the texts that say the same as its own report:
  L_i = -½ Σ_{j ∈ P(i)} [log softmax_j(s·cos(i, j)) + log softmax_i(s·cos(i, j))] / |P(i)|        (InfoNCE, CLIP's loss)
        + the binary cross-entropy of the report's statements (finding; with side, zone, extent), read by a linear map from
          the best patch, from the image's vector and from the text's vector.
Statements come from the rule labeller, so two normal reports in other words do not push each other away, and a batch of
64 teaches sides and places that the contrast alone would learn from far more pairs. # our choices
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipProcessor

from chexalign.data.images import load_image
from chexalign.errors import RecipeError
from chexalign.judges.neural.two_towers import unit
from chexalign.labels import find_mentions
from chexalign.policies.checkpoints.tiny import build_tokenizer
from chexalign.processes import barrier, is_main
from chexalign.recipe.warmup import ExpertPhase
from chexalign.records import Study
from chexalign.train.loop import Trainer
from chexalign.train.loop_settings import LoopFiles, LoopSettings
from chexalign.train.output import saving
from chexalign.train.warmup.tower import centre_start

# Shape and loss, all our choice: the smallest that learnt sides in two minutes on two cores
WIDTH = 128
TEXT_WIDTH = 64
LAYERS = 3
TEXT_LAYERS = 2
HEADS = 4
VOCABULARY, LONGEST = 1024, 128  # tokens; the text tower reads what 98 % of the training reports need, at most LONGEST
START_SCALE, MAX_SCALE = 20.0, 100.0  # s, which is learnt
READ_OUT = 10.0  # a unit vector's entries are small: the linear maps see them times this
RARE = 150  # a statement is learnt when one report in so many makes it, and two at least


def statements(text: str) -> frozenset[str]:
    """What a report says is there: `Pleural Effusion`, `Pleural Effusion/left`, `…/left/lower`, `…/small`."""
    said = set()
    for m in find_mentions(text):
        if m.status == 1:
            said.add(m.label)
            said |= {f"{m.label}/{extent}" for extent in (m.size, m.severity) if extent}
            for side in ("left", "right") if m.side == "bilateral" else (m.side,):
                said |= {f"{m.label}/{side}"} if side else set()
                said |= {f"{m.label}/{side}/{m.zone}"} if m.zone else set()
    return frozenset(said)


@dataclass(frozen=True)
class ExpertExample:
    """An image with its report's tokens, and the set of statements that makes two reports say the same."""

    pixels: Tensor  # (3, H, W), as the processor makes them, half precision
    ids: Tensor  # (T,)
    labels: Tensor  # (n_statements,), 0 or 1
    says: frozenset[str]


class ExpertModule(nn.Module):
    """SigLIP and the linear maps that only training needs."""

    def __init__(self, model: Any, n_statements: int):
        super().__init__()
        self.model = model
        width = model.config.vision_config.hidden_size
        self.from_patch, self.from_image, self.from_text = (nn.Linear(width, n_statements) for _ in range(3))

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """→ s·cos (B, B), images in rows, and statement logits (B, n) from patches, images and texts."""
        seen = self.model.vision_model(pixel_values=pixels)
        image, text = unit(seen), unit(self.model.get_text_features(input_ids=ids))
        scale = self.model.logit_scale.exp().clamp(max=MAX_SCALE)
        read = self.from_image(READ_OUT * image), self.from_text(READ_OUT * text)
        return scale * image @ text.T, (self.from_patch(seen.last_hidden_state).amax(1), *read)


def contrastive(logits: Tensor, same: Tensor) -> Tensor:
    """(B, B) scaled cosines and which pairs say the same → (B,) L_i without its second line. InfoNCE where only i = j do."""
    forth, back = logits.log_softmax(1), logits.log_softmax(0)
    share = same / same.sum(1, keepdim=True)
    return -0.5 * ((share * forth).sum(1) + (share * back.T).sum(1))


class ExpertTask:
    """One micro-batch is one contrast: `micro_batch_size` is `batch_size`."""

    def __init__(self, module: ExpertModule):
        self.module: nn.Module = module

    def inputs(self, items: Sequence[ExpertExample]) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, H, W) in float32, and ids (B, T): all items have one T."""
        device = next(self.module.parameters()).device
        return torch.stack([e.pixels for e in items]).float().to(device), torch.stack([e.ids for e in items]).to(device)

    def loss(
        self, output: Any, items: Sequence[ExpertExample], weights: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,): contrast, where equal statements are no negatives, plus the cross-entropy of the statements read."""
        logits, read = output
        labels = torch.stack([e.labels for e in items]).to(logits.device)
        same = torch.tensor([[float(a.says == b.says) for b in items] for a in items], device=logits.device)
        if weights is not None:  # an item of weight 0 is nobody's negative
            logits = logits.masked_fill((weights == 0)[None, :], -1e4).masked_fill((weights == 0)[:, None], -1e4)
            same = same * weights[None, :] * weights[:, None] + torch.diag((weights == 0).float())
        contrast = contrastive(logits, same)
        stated = sum(F.binary_cross_entropy_with_logits(r, labels, reduction="none").sum(1) for r in read)
        return contrast + stated, {"contrast": contrast.detach()}

    def size(self, item: ExpertExample) -> int:
        """Tokens of the report."""
        return len(item.ids)

    def check_first(self, output: Any, items: Sequence[ExpertExample]) -> None:
        """Nothing is promised of a random model."""


def build_expert(texts: Sequence[str], image_size: int, patch_size: int, seed: int) -> tuple[Any, SiglipProcessor]:
    """A random SigLIP and its processor; the text tower is as long as 98 % of the texts need."""
    tokenizer = build_tokenizer(texts, VOCABULARY)
    tokenizer.padding_side, tokenizer.model_input_names = "right", ["input_ids"]  # SigLIP reads its padding
    lengths = sorted(len(ids) for ids in tokenizer(list(texts))["input_ids"])
    limit = min(LONGEST, 8 * math.ceil((lengths[int(0.98 * (len(lengths) - 1))] + 1) / 8))
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    text = {"hidden_size": TEXT_WIDTH, "intermediate_size": 2 * TEXT_WIDTH, "num_hidden_layers": TEXT_LAYERS}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": limit, "projection_size": WIDTH, **ids}
    vision = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_hidden_layers": LAYERS}
    vision |= {"image_size": image_size, "patch_size": patch_size}
    config = SiglipConfig(
        text_config={**text, "num_attention_heads": HEADS}, vision_config={**vision, "num_attention_heads": HEADS}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(START_SCALE))
        model.logit_bias.zero_().requires_grad_(False)  # of SigLIP's sigmoid loss, which is not ours
    size = {"height": image_size, "width": image_size}
    return model, SiglipProcessor(SiglipImageProcessorPil(size=size), tokenizer)


def expert_examples(studies: Sequence[Study], root: Path, processor: Any, limit: int) -> list[ExpertExample]:
    """The first image of each study that has one, with its report."""
    said = [statements(s.findings) for s in studies]
    counts = Counter(x for one in said for x in one)
    known = sorted(x for x, n in counts.items() if n >= max(2, len(studies) // RARE)) or ["nothing"]
    texts = [s.findings for s in studies]
    ids = processor.tokenizer(texts, padding="max_length", truncation=True, max_length=limit, return_tensors="pt")
    examples = []
    for study, row, says in zip(studies, ids["input_ids"], said, strict=True):
        image = load_image(root, study.images[0][0])
        pixels = processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        labels = torch.tensor([float(x in says) for x in known])
        examples.append(ExpertExample(pixels.half(), row, labels, says))
    return examples


@dataclass(frozen=True)
class ExpertSettings:
    """The recipe's phase and the shape of the tower: patches are `patch_size`² pixels."""

    phase: ExpertPhase
    image_size: int  # pixels, a side
    patch_size: int
    seed: int


def train_expert(studies: Sequence[Study], root: Path, folder: Path, work: Path, settings: ExpertSettings) -> None:
    """Train on `studies` (the training split alone) and write an ordinary checkpoint to `folder` in one step.

    The log goes to `work`/expert_log.jsonl.
    """
    phase, seed = settings.phase, settings.seed
    studies = [s for s in studies if s.images and s.findings.strip()]
    if len(studies) < 2:
        raise RecipeError("warmup.expert: there are no images with reports to learn from; set warmup.expert.steps=0")
    model, processor = build_expert([s.findings for s in studies], settings.image_size, settings.patch_size, seed)
    examples = expert_examples(studies, root, processor, model.config.text_config.max_position_embeddings)
    centre_start(model.vision_model, torch.stack([e.pixels for e in examples[:512]]).float())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = ExpertModule(model, len(examples[0].labels))
    task = ExpertTask(module.to("cuda" if torch.cuda.is_available() else "cpu"))
    loop = LoopSettings(
        steps=phase.steps,
        lr=phase.lr,
        batch_size=phase.batch_size,
        micro_batch_size=phase.batch_size,
        seed=seed,
        weight_decay=0.01,
    )
    steps = work / "expert_steps"
    Trainer(task, examples, loop, LoopFiles(steps, work / "expert_log.jsonl"), "warm-up: expert").run()
    barrier()
    if is_main():
        fresh = folder.with_name(f".{folder.name}.new")
        with saving(folder.parent):
            model.save_pretrained(fresh)
            processor.save_pretrained(fresh)
        fresh.rename(folder)
        shutil.rmtree(steps)  # checkpoints on the way
    barrier()
