"""Does the report fit the image? cos(text, image) in a frozen expert's space: VALOR's S_i. `rank(visual)` is its r_vis.

The only judge that looks at the image and at no reference. The expert is any CLIP- or SigLIP-type model of transformers
(two_towers.py says which), or the small one that a warm-up with `warmup.expert` leaves in the run folder.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chexalign.errors import Abstain, RecipeError
from chexalign.judges.cache import open_store, pack_array, remembered, unpack_array
from chexalign.judges.columns import library_form
from chexalign.judges.contract import Judgement, Studies, TextJudge, same_length, unreadable_report
from chexalign.judges.weights import fingerprint
from chexalign.labels.readability import examine
from chexalign.records import Study

if TYPE_CHECKING:
    from chexalign.judges.neural.two_towers import TwoTowers

EXPERT = "expert"  # the folder that the warm-up writes; a recipe's `model: expert` means the run's own
WORST = -1.0
DIGITS = 6  # a float32 cosine has no more, and the last ones may change with the batch


@dataclass(frozen=True)
class Expert:
    """Where the model and the images are."""

    model: str | None
    images: Path | None
    download: bool
    trust_remote_code: bool
    device: str


class Visual:
    """Mean (our choice; or max) over the study's images of the cosine between report and image, -1 to 1."""

    name = "visual"
    sees_images = True  # a score depends on the study: never cache it by its texts

    def __init__(self, expert: Expert, pool: Literal["mean", "max"], cache: str | None):
        self.expert = expert
        self.pool = pool
        self.store = open_store(cache, "visual")
        self._towers: TwoTowers | None = None
        self._paths: dict[str, Path] = {}  # content hash → a file that has it

    @functools.cached_property
    def _texts(self) -> TextJudge:
        return self._memory("text", self._encode_texts)

    @functools.cached_property
    def _images(self) -> TextJudge:
        return self._memory("image", self._encode_images)

    def _memory(self, what: str, encode_many: Any) -> TextJudge:
        """Vectors by key: each key once, the longest unused go first, the disk behind it. Made when the expert is there."""
        version = f"two towers 1 {fingerprint(self.expert.model or '')} {what}"
        read = remembered(self.store, version, encode_many, pack_array, unpack_array)
        return TextJudge(what, version, None, lambda a, b: (0.0, {}), read)

    @property
    def version(self) -> str:
        """A local checkpoint by its content, a hub id as it is: other weights under one path are another judge."""
        remote = " remote code" if self.expert.trust_remote_code else ""
        return f"1 model={fingerprint(self.expert.model or 'none')}{remote} pool={self.pool}"

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """`references` are not read. Abstains where there is no study, no image, or an image that cannot be decoded."""
        same_length(reports, references)
        if studies is None:
            return [Judgement(None, "no study was given, and this judge looks at its image")] * len(reports)
        if len(studies) != len(reports):
            raise ValueError(f"{len(reports)} reports but {len(studies)} studies")
        seen = [self._look(s) for s in studies]
        pictures = self._images.features(d for digests in seen if not isinstance(digests, Abstain) for d in digests)
        texts = self._texts.features(t for t in reports if not examine(t).problem)
        return [self._one(t, d, texts, pictures) for t, d in zip(reports, seen, strict=True)]

    def _one(
        self, text: str, digests: list[str] | Abstain, texts: dict[str, Any], pictures: dict[str, Any]
    ) -> Judgement:
        found: list[Any] = [digests] if isinstance(digests, Abstain) else [pictures[d] for d in digests]
        if why := next((str(p) for p in found if isinstance(p, Abstain)), None):
            return Judgement(None, why)
        if problem := examine(text).problem:
            return unreadable_report(problem, WORST)
        vector, tokens = texts[text][:-1], texts[text][-1]
        each = [float(vector @ p) for p in found]
        score = max(each) if self.pool == "max" else sum(each) / len(each)
        cut = max(0, int(tokens) - self.towers().limit)
        details = {"per_image": [round(c, DIGITS) for c in each], **({"tokens_not_read": cut} if cut else {})}
        return Judgement(round(score, DIGITS), details=details)

    # ---- images and texts to vectors

    def _look(self, study: Study) -> list[str] | Abstain:
        """The content hashes of a study's images."""
        from chexalign.data.image_errors import ImageError
        from chexalign.data.images import inside

        if not study.images:
            return Abstain(f"study {study.study_id} has no image")
        root = self.expert.images
        if root is None:
            raise RecipeError(
                "judges.visual.images is missing: give the folder that the studies' image paths start from"
            )
        digests = []
        for relative, _ in study.images:
            try:
                path = inside(root, relative)
                digest = _hash(path, *_state(path))
            except ImageError as error:
                return Abstain(str(error))
            self._paths[digest] = path
            digests.append(digest)
        return digests

    def _encode_images(self, digests: Sequence[str]) -> list[Any]:
        from chexalign.data.image_errors import ImageError
        from chexalign.data.images import load_image

        opened: dict[str, Any] = {}
        for digest in digests:
            path = self._paths[digest]
            try:
                opened[digest] = load_image(path.parent, path.name)
            except ImageError as error:
                opened[digest] = Abstain(str(error))
        good = [d for d in digests if not isinstance(opened[d], Abstain)]
        vectors = dict(zip(good, self.towers().images([opened[d] for d in good]), strict=True))
        return [vectors.get(d, opened[d]) for d in digests]

    def _encode_texts(self, texts: Sequence[str]) -> list[Any]:
        """Per text its unit vector, and behind it the number of its tokens."""
        import numpy as np

        towers = self.towers()
        counts = np.array(towers.count(texts), np.float32)[:, None]
        return list(np.hstack([towers.texts(texts), counts]))

    def towers(self) -> TwoTowers:
        """Opened at the first question and kept. Raises RecipeError where no checkpoint is given or its folder is absent."""
        if self._towers is None:
            from chexalign.judges.neural.two_towers import open_two_towers

            e = self.expert
            if e.model is None or _unwritten(e.model):
                raise RecipeError(f"judge visual: {missing(model=None) if e.model is None else _absent(e.model)}")
            options = {"download": e.download, "trust_remote_code": e.trust_remote_code, "device": e.device}
            self._towers = open_two_towers(e.model, **options)  # type: ignore[arg-type]
        return self._towers


def _state(path: Path) -> tuple[int, int]:
    from chexalign.data.image_errors import ImageError

    try:
        stat = path.stat()
    except OSError as error:
        raise ImageError(f"image {path} is missing; restore it or remove its study") from error
    return stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=1 << 20)
def _hash(path: Path, modified: int, size: int) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def visual(
    *,
    model: str | None = None,
    images: Path | None = None,
    pool: Literal["mean", "max"] = "mean",
    download: bool = False,
    trust_remote_code: bool = False,
    device: str = "auto",
    cache: str | None = None,
) -> Visual:
    """`model`: folder or hub id; `images`: the folder that image paths start from; `pool`: over the images of a study."""
    return Visual(Expert(model, images, download, trust_remote_code, device), pool, cache)


def missing(*, model: str | None = None, download: bool = False, **_: Any) -> str | None:
    """What this judge lacks, or None. The expert of a run's own warm-up may still be unwritten."""
    if model is None:
        return "no expert is given; set model: a folder, a hub id, or `expert` with warmup.expert (docs/use/heavy-judges.md)"
    if _unwritten(model) or Path(model).is_dir() or download:
        return None
    return f"model {model} is no local folder; give one, or allow the hub with download: true"


def _unwritten(model: str) -> bool:
    return Path(model).name == EXPERT and not Path(model).is_dir()


def _absent(model: str) -> str:
    return f"{model} is missing; add `expert: {{steps: 300}}` to the recipe's warmup and run it, or give another model"
