"""What a judge is: it has a name and a version, and scores reports against references or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from chexalign.errors import Abstain
from chexalign.judges.columns import library_form
from chexalign.judges.judgement import Judgement as Judgement
from chexalign.judges.request import RewardRequest
from chexalign.labels.readability import examine
from chexalign.records import Study

Studies = Sequence[Study] | None


class Judge(Protocol):
    """The role every judge fills. Higher scores are better; results never depend on batch size or order.

    `version` names all that can change a score (rules, model, layer, options); caches and manifests hold it.
    """

    @property
    def name(self) -> str:
        """The column of every table: the line that a recipe writes, with what changes the metric."""

    @property
    def version(self) -> str:
        """Changes whenever a score may change; stored verdicts of another version are not reused."""

    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """One Judgement per report, in order; the three sequences have one length, or ValueError is raised."""
        ...


@runtime_checkable
class RewardJudge(Judge, Protocol):
    """A judge whose answer may depend on the other reports of a group or on the training step (`context` says which).

    Its `score` works only when `context` is empty; `reward` below is the door for all judges. Never cached per text.
    """

    @property
    def context(self) -> frozenset[str]:
        """A subset of {"group", "step"}."""

    def reward(self, request: RewardRequest) -> list[Judgement]:
        """One judgement per report of the request, in its order."""


def reward(judge: Judge, request: RewardRequest) -> list[Judgement]:
    """Score with any judge; those that look at the group, the step or what was written get the whole request.

    Returns one Judgement per report, in order. Raises RecipeError when the request lacks what the judge looks at.
    """
    request = request.cleaned()
    if isinstance(judge, RewardJudge):
        return judge.reward(request)
    return judge.score(request.reports, request.references, request.studies)


def context_of(judge: Judge) -> frozenset[str]:
    """What beside the texts a judge's answer depends on: a subset of {"group", "step"}."""
    return judge.context if isinstance(judge, RewardJudge) else frozenset()


def same_length(reports: Sequence[str], references: Sequence[str]) -> None:
    """Raises ValueError when there is not one reference per report."""
    if len(reports) != len(references):
        raise ValueError(f"{len(reports)} reports but {len(references)} references")


def is_blank(text: str) -> bool:
    """True when the text holds no letter or digit: nothing, white space or punctuation alone."""
    return not any(c.isalnum() for c in text)


ANY_LANGUAGE = "any language"  # a judge that compares a report with a reference of the same language, whichever it is


def without_judging(report: str, reference: str, worst: float = 0.0, reads: str = ANY_LANGUAGE) -> Judgement | None:
    """The answer to a pair that needs no judge, None for all others. `reads` is one language, or any.

    A reference that is no report, or in a language that the judge does not read: an abstention with the reason. A report
    that is none (empty, refusal, repetition, no statement), or in another language: `worst`, as that is the policy's doing,
    with the reason as `note` and the kind as `unreadable` in the details.
    """
    theirs = examine(reference)
    if theirs.problem:
        return Judgement(None, f"the reference is {_said(theirs.problem)}")
    if reads != ANY_LANGUAGE and theirs.language not in (None, reads):
        return Judgement(None, f"the reference is in {theirs.language}, and this judge reads {reads} alone")
    return without_reading(report, worst, theirs.language if reads == ANY_LANGUAGE else reads)


def without_reading(report: str, worst: float, wanted: str | None) -> Judgement | None:
    """The answer to a report that is none, or not in the `wanted` language (None: any); None for all others."""
    ours = examine(report)
    if ours.problem:
        return unreadable_report(ours.problem, worst)
    if wanted is not None and ours.language not in (None, wanted):
        note = {"note": f"the report is in {ours.language}, not in {wanted}", "unreadable": "another language"}
        return Judgement(worst, details=note)
    return None


def unreadable_report(problem: str, worst: float) -> Judgement:
    """The lowest score for a text that is no report: the policy wrote it, and the judge has not failed."""
    return Judgement(worst, details={"note": f"the report is {_said(problem)}", "unreadable": problem})


def _said(problem: str) -> str:
    return {"empty": "empty", "no statement": "empty of statements"}.get(problem, f"a {problem}")


MEMORY = 50_000  # texts whose features a judge keeps; the longest unused go first


@dataclass(frozen=True)
class TextJudge:
    """A judge made of two pure functions: `encode` once per distinct text, `compare(report, reference)` per pair.

    A reference that cannot be read (see `without_judging`) is an abstention, and so is an Abstain of either function; a
    report that cannot be read gives `worst`. `reads` is the language that it reads, or any.
    A judge that encodes in batches gives `encode_many` instead of `encode`: the features of distinct texts, in order,
    with an Abstain in the place of a text that cannot be read.
    """

    name: str
    version: str
    encode: Callable[[str], Any] | None
    compare: Callable[[Any, Any], tuple[float, dict[str, Any]]]
    encode_many: Callable[[Sequence[str]], Sequence[Any]] | None = None
    worst: float = 0.0
    reads: str = ANY_LANGUAGE
    memory: int | None = None  # texts to keep; MEMORY when None
    _memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def features(self, texts: Iterable[str]) -> dict[str, Any]:
        """Features by text, an Abstain for a text that cannot be read. Only texts not in memory are encoded."""
        return with_memory(self._memory, MEMORY if self.memory is None else self.memory, texts, self._encode)

    def _encode(self, texts: Sequence[str]) -> Sequence[Any]:
        if self.encode_many is not None:
            return self.encode_many(texts)
        assert self.encode is not None, f"{self.name} has neither encode nor encode_many"
        return [_tried(self.encode, text) for text in texts]

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """Each distinct text is encoded once. Raises ValueError for lists of unequal length; what cannot be judged abstains."""
        same_length(reports, references)
        pairs = list(zip(reports, references, strict=True))
        plain = [without_judging(*pair, self.worst, self.reads) for pair in pairs]
        found = self.features(t for pair, answer in zip(pairs, plain, strict=True) if answer is None for t in pair)
        return [answer or self._one(*pair, found) for pair, answer in zip(pairs, plain, strict=True)]

    def _one(self, report: str, reference: str, found: dict[str, Any]) -> Judgement:
        for who, features in (("report", found[report]), ("reference", found[reference])):
            if isinstance(features, Abstain):
                return Judgement(None, f"the {who}: {features}")
        try:
            score, details = self.compare(found[report], found[reference])
        except Abstain as reason:
            return Judgement(None, str(reason))
        return Judgement(score, details=details)


def with_memory(
    memory: dict[str, Any], limit: int, texts: Iterable[str], encode_many: Callable[[Sequence[str]], Sequence[Any]]
) -> dict[str, Any]:
    """Features by text: those in `memory`, and the others encoded and kept there; beyond `limit` the longest unused go."""
    wanted = list(dict.fromkeys(texts))
    missing = [t for t in wanted if t not in memory]
    found = {t: memory.pop(t) for t in wanted if t in memory}
    found |= dict(zip(missing, encode_many(missing), strict=True)) if missing else {}
    memory.update(found)
    too_many = len(memory) - limit
    for text in list(memory)[:too_many] if too_many > 0 else ():
        del memory[text]
    return found


def _tried(encode: Callable[[str], Any], text: str) -> Any:
    try:
        return encode(text)
    except Abstain as reason:
        return reason
