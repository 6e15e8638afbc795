"""BERTScore (Zhang et al. 2020): greedy cosine matches between the token embeddings of report and reference.

P is the mean over the report's tokens of their best cosine with any token of the reference, R the reverse,
F = 2PR / (P + R); no IDF. [CLS] and [SEP] weigh nothing but can be matched, as in bert-score 0.3.13, whose values these
are. CheXalign's setting is distilbert-base-uncased, layer 5, not rescaled. The name tells model and layer, as in
`bertscore[minilm-l6:L6]`: scores of two models cannot be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chexalign.errors import Abstain, RecipeError
from chexalign.judges import cache as disk
from chexalign.judges.contract import TextJudge, with_memory
from chexalign.judges.neural.encoders import DISTILBERT, MINILM, find_model, identity, text_encoder

if TYPE_CHECKING:
    import numpy as np

Measure = Literal["precision", "recall", "f1"]
MEASURES: tuple[Measure, ...] = ("precision", "recall", "f1")
MEMORY = 8_000  # texts whose embeddings a process keeps: about 0.7 GB of MiniLM, 1.4 GB of distilbert # our choice

LAYERS = {DISTILBERT: 5, MINILM: 6}  # when none is given: bert-score's own for distilbert, the last for MiniLM
# (P, R, F) of unrelated texts. distilbert: bert-score's published file. minilm-l6: means of 3,000 random OpenI pairs.
BASELINES = {
    (DISTILBERT, 5): (0.6666034, 0.66660464, 0.66620487),
    (MINILM, 6): (0.5920, 0.5904, 0.5873),
}


def bertscore(
    *,
    variant: str | None = None,
    model: str | None = None,
    layer: int | None = None,
    measure: Measure = "f1",
    rescale: bool = False,
    device: str = "auto",
    cache: str | None = None,
) -> TextJudge:
    """`model` is distilbert, minilm-l6, a folder or a cached hub id; distilbert when none is given and it is here, else
    minilm-l6. `variant` is short for the others: `model:L6`, then `:precision` or `:recall`, then `:rescaled`.
    """
    if variant is not None:
        model, layer, measure, rescale = read_variant(variant, layer, measure, rescale)
    model = model or default_model()
    layer = layer or LAYERS.get(model)
    if layer is None:
        raise RecipeError(f"judges.bertscore.layer is missing: say which layer of {model} to use")
    if rescale and (model, layer) not in BASELINES:
        raise RecipeError(f"judges.bertscore: no baseline to rescale {model} layer {layer} with; leave rescale out")
    base = BASELINES[model, layer] if rescale else (0.0, 0.0, 0.0)
    place = MEASURES.index(measure)

    def compare(report: np.ndarray, reference: np.ndarray) -> tuple[float, dict[str, Any]]:
        values = [(x - b) / (1 - b) for x, b in zip(greedy_matches(report, reference), base, strict=True)]
        return values[place], dict(zip(MEASURES, values, strict=True))

    marks = [f"L{layer}", *([measure] if measure != "f1" else []), *(["rescaled"] if rescale else [])]
    return TextJudge(
        name=f"bertscore[{':'.join([Path(model).name, *marks])}]",
        version=f"1 {' '.join([model, _identity(model), *marks])}",
        encode=None,
        compare=compare,
        encode_many=_features(model, layer, device, cache),
        worst=-base[place] / (1 - base[place]),
        memory=0,  # _features keeps them, for all measures together
    )


def read_variant(
    variant: str, layer: int | None, measure: Measure, rescale: bool
) -> tuple[str, int | None, Measure, bool]:
    """`minilm-l6:L6:recall:rescaled` → its parts; what it does not say stays as given."""
    model, *marks = variant.split(":")
    for mark in marks:
        if mark in MEASURES:
            measure = MEASURES[MEASURES.index(mark)]
        elif mark == "rescaled":
            rescale = True
        elif mark[:1] == "L" and mark[1:].isdigit() and int(mark[1:]):
            layer = int(mark[1:])
        else:
            raise RecipeError(
                f"bertscore[{variant}]: {mark!r} is no layer (L6), measure (precision, recall) or `rescaled`"
            )
    return model, layer, measure, rescale


def default_model() -> str:
    """distilbert, CheXalign's, where it is on this machine, else minilm-l6. The judge's name says which."""
    return DISTILBERT if isinstance(find_model(DISTILBERT), Path) else MINILM


def missing(*, variant: str | None = None, model: str | None = None, **options: Any) -> str | None:
    """Why BERTScore cannot run here, or None."""
    found = find_model(variant.split(":")[0] if variant else model or default_model())
    return found if isinstance(found, str) else None


def _identity(model: str) -> str:
    return identity(model) if isinstance(find_model(model), Path) else "absent"


@functools.cache
def _features(model: str, layer: int, device: str, cache: str | None) -> disk.Encoder:
    """Texts → their token embeddings of unit length, from memory, else from the disk, else from the model."""
    memory: dict[str, Any] = {}
    store = disk.open_store(cache, "bertscore")

    def embed(texts: Sequence[str]) -> list[Any]:
        states = text_encoder(model, layer, device).token_states(texts)
        return [s if isinstance(s, Abstain) else unit(s) for s in states]

    def encode(texts: Sequence[str]) -> list[Any]:
        version = f"bertscore 1 {model} {_identity(model)} L{layer}"
        from_disk = disk.remembered(store, version, embed, disk.pack_array, disk.unpack_array)
        found = with_memory(memory, MEMORY, texts, from_disk)
        return [found[t] for t in texts]

    return encode


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row at length 1."""
    import numpy as np

    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def greedy_matches(report: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """(P, R, F) from unit token embeddings (m, d) and (n, d) whose first and last rows are [CLS] and [SEP]."""
    cosines = report @ reference.T
    precision = min(float(cosines[1:-1].max(axis=1).mean()), 1.0)  # rounding can reach 1 + 1e-7
    recall = min(float(cosines[:, 1:-1].max(axis=0).mean()), 1.0)
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0
