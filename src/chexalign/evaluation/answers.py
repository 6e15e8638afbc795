"""What the policies wrote on the evaluated studies, and how it was scored."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from chexalign.evaluation.unread import Counts
from chexalign.labels import label_report
from chexalign.labels import positive_set as positives
from chexalign.labels.truth import study_labels
from chexalign.records import Study

WHICH = ("baseline", "aligned")
DECODINGS = {"temperature_1": "temperature 1.0", "greedy": "greedy", "shuffled": "temperature 1.0"}  # name → in words

SEED = 0  # of the bootstrap: the same resamples for every metric, so that cells can be compared


class Decoded(NamedTuple):
    """Which policy wrote, and how it decoded: the name of one set of reports."""

    policy: str  # baseline, aligned, untuned, stage_1 …
    decoding: str  # temperature_1, greedy, shuffled: with other studies' images


@dataclass(frozen=True)
class Answers:
    """One policy under one decoding on the evaluated studies, in their order."""

    texts: list[str]
    scores: dict[str, list[float | None]]  # judge → one score per study
    written: tuple[str | None, ...] = ()  # what was written, where `texts` is that without tags and markup
    facts: tuple[Any, ...] = ()  # what the judge `facts` read in each report, where it was asked
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)  # of labellers that are costly, (n, 3, 14) by family
    unread: Mapping[str, Sequence[Counts]] = field(default_factory=dict)  # judge → what it could not read, per study

    def words(self) -> list[float | None]:
        """Length of each text in white-space words; never None, but typed as scores are so that both are averaged alike."""
        return [float(len(t.split())) for t in self.texts]


@dataclass(frozen=True)
class Evaluated:
    """The evaluated studies with their references, and the answers of every policy and decoding, all in one order."""

    studies: Sequence[Study]
    references: Sequence[str]
    answers: Mapping[Decoded, Answers]

    def has(self, policy: str, decoding: str) -> bool:
        """Whether this policy wrote under this decoding; controls and greedy decoding depend on the recipe."""
        return Decoded(policy, decoding) in self.answers

    def of(self, policy: str, decoding: str) -> Answers:
        """Raises KeyError where `has` is False."""
        return self.answers[Decoded(policy, decoding)]

    def pair(self, decoding: str, before: str = "baseline", after: str = "aligned") -> tuple[Answers, Answers]:
        """Two policies' answers about the same studies in the same order, so that their differences are paired."""
        return self.of(before, decoding), self.of(after, decoding)

    def everyone(self) -> range:
        """The indices of all studies."""
        return range(len(self.studies))

    def abnormal(self) -> list[int]:
        """The indices of the studies whose reference has a finding."""
        pairs = zip(self.references, self.studies, strict=True)
        return [i for i, (reference, study) in enumerate(pairs) if is_abnormal(reference, study)]


@functools.lru_cache(maxsize=100_000)
def label_set(text: str) -> frozenset[str]:
    """Positive labels of a report among the 14 (uncertain counts as positive, as in CheXbert's rrg mode)."""
    return positives(label_report(text))


def truth_set(reference: str, study: Study) -> frozenset[str]:
    """Positive labels of the reference report; of the source's labels where the study has no report."""
    known = None if any(c.isalnum() for c in reference) else study_labels(study)
    return label_set(reference) if known is None else positives(known)


def is_abnormal(reference: str, study: Study | None = None) -> bool:
    """True when the reference (see `truth_set`) has a finding beyond devices: No Finding is not set."""
    return "No Finding" not in (label_set(reference) if study is None else truth_set(reference, study))
