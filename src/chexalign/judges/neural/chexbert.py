"""CheXbert (Smit et al., EMNLP 2020) from its original `chexbert.pth`: 14 labels of a report by a BERT with 14 heads.

bert-base-uncased, and on the first token of its last layer 13 heads of four classes and one of two for No Finding. The
published code runs on no transformers release of today; this loader needs the weights file, the WordPiece vocabulary of
bert-base-uncased, and nothing else. The file is read with `weights_only=True`: it cannot bring code.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizer

from chexalign.errors import RecipeError
from chexalign.judges.weights import local_folder
from chexalign.labels import LABELS
from chexalign.labels.context import ABSENT, PRESENT, UNCERTAIN

STATUS = (None, PRESENT, ABSENT, UNCERTAIN)  # what the classes 0 to 3 of a head mean; No Finding has 0 and 1 alone
MAX_TOKENS = 512  # longer reports are cut, as CheXbert's own code does
IGNORED = {"bert.embeddings.position_ids"}  # a constant that old transformers saved with the weights


class CheXbert(nn.Module):
    """(B, T) token ids and mask → 14 logits, in the order of LABELS: 13 of (B, 4) and one of (B, 2)."""

    def __init__(self, shape: BertConfig):
        super().__init__()
        self.bert = BertModel(shape)
        classes = [len(STATUS)] * (len(LABELS) - 1) + [2]
        self.linear_heads = nn.ModuleList(nn.Linear(shape.hidden_size, n) for n in classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Only the first ([CLS]) position of the last layer is read."""
        first = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return [head(first) for head in self.linear_heads]


@dataclass(frozen=True)
class Labeller:
    """Reports → labels. Batches hold reports of like length and at most `tokens` tokens with their padding."""

    model: CheXbert
    tokenizer: Any
    tokens: int = 4096

    def __call__(self, texts: Sequence[str]) -> list[dict[str, int | None]]:
        """One status per label, in the order of LABELS: 1 present, 0 absent, -1 uncertain, None not mentioned."""
        return [dict(zip(LABELS, map(STATUS.__getitem__, row), strict=True)) for row in self.classes(texts)]

    @torch.inference_mode()
    def classes(self, texts: Sequence[str]) -> list[list[int]]:
        """The winning class of each of the 14 heads."""
        ids = [self.encode(t) for t in texts]
        rows: dict[int, list[int]] = {}
        for batch in self._batches(ids):
            inputs = self.tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
            device = self.model.bert.device
            logits = self.model(inputs["input_ids"].to(device), inputs["attention_mask"].to(device))
            found = torch.stack([head.argmax(1) for head in logits], 1).tolist()
            rows.update(zip(batch, found, strict=True))
        return [rows[i] for i in range(len(ids))]

    def encode(self, text: str) -> list[int]:
        """Token ids of a report, white space normalised, cut to 511 and [SEP]."""
        clean = " ".join(text.split()).encode(errors="replace").decode()  # half a surrogate pair becomes "?"
        return self.tokenizer(clean, truncation=True, max_length=MAX_TOKENS)["input_ids"]

    def _batches(self, ids: Sequence[Sequence[int]]) -> list[list[int]]:
        batches: list[list[int]] = []
        for i in sorted(range(len(ids)), key=lambda i: len(ids[i])):
            if not batches or (len(batches[-1]) + 1) * len(ids[i]) > self.tokens:
                batches.append([])
            batches[-1].append(i)
        return batches


def load_chexbert(
    weights: Path, tokenizer: str, *, download: bool, device: str, shape: BertConfig | None = None
) -> Labeller:
    """The labeller in `weights`; `shape` is bert-base-uncased's unless given. Raises RecipeError for what does not fit."""
    shape = shape or BertConfig()  # its defaults are bert-base-uncased
    model, state = CheXbert(shape), read_state(weights)
    expected = model.state_dict()
    lacks, extra = sorted(expected.keys() - state), sorted(state.keys() - expected - IGNORED)
    differs = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    if lacks or extra or differs:
        found = {"lacks": lacks, "holds unknown": extra, "has another shape for": differs}
        what = "; it ".join(f"{verb} {_some(names)}" for verb, names in found.items() if names)
        raise RecipeError(f"{weights} is not a CheXbert checkpoint: it {what}")
    model.load_state_dict({k: state[k].float() for k in expected})
    words = load_tokenizer(tokenizer, download)
    if len(words) != shape.vocab_size:
        raise RecipeError(
            f"tokenizer {tokenizer} has {len(words)} words, {weights} has {shape.vocab_size}: not the same"
        )
    return Labeller(model.eval().to(device), words)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def read_state(weights: Path) -> dict[str, Tensor]:
    """The weights by name, without the `module.` that nn.DataParallel put in front; the optimizer's state stays behind."""
    if not weights.is_file():
        raise RecipeError(f"CheXbert weights {weights} are missing; give the path of chexbert.pth")
    try:
        saved = torch.load(weights, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(weights))
    except (UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise RecipeError(f"{weights} cannot be read as weights ({reason})") from error
    state = saved.get("model_state_dict", saved) if isinstance(saved, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RecipeError(f"{weights} is not a CheXbert checkpoint: it holds no `model_state_dict` of tensors")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_tokenizer(where: str, download: bool) -> Any:
    """The WordPiece tokenizer: a vocab.txt, a folder that holds one, or a hub id (fetched only when `download`)."""
    try:
        if Path(where).is_file():
            return BertTokenizer(vocab=where)
        return AutoTokenizer.from_pretrained(where if download else local_folder(where))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"no tokenizer at {where!r}; give bert-base-uncased's vocab.txt or its folder, or allow the hub with download: true"
        ) from error
