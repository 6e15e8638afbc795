"""Word overlap: BLEU-4 and ROUGE-1, -2 and -L.

The judge `bleu4` is the sentence form that sacrebleu 2.6 gives for `BLEU(effective_order=True)`, divided by 100
(Papineni et al. 2002; exponential smoothing, Chen and Cherry 2014). `corpus_bleu_coco` is the other BLEU-4, the one of
the report-generation literature, for tables only: without smoothing it is 0 for nearly every single report.
ROUGE equals rouge_score 0.1.2 without its stemmer (Lin 2004).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rapidfuzz.distance import LCSseq

from chexalign.judges.contract import Abstain, TextJudge

ORDER = 4
Grams = Counter[tuple[str, ...]]

# The 13a tokens of the mteval script: ASCII punctuation stands alone; . and , stay inside numbers, - after a letter.
_ALONE = re.compile(r"([{-~\[-` -&(-+:-@/])")
_MARK_AFTER_NON_DIGIT = re.compile(r"([^0-9])([.,])")
_MARK_BEFORE_NON_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
_ROUGE_WORD = re.compile(r"[a-z0-9]+")


def tokens_13a(text: str) -> list[str]:
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        line = line.replace(entity, character)
    line = _ALONE.sub(r" \1 ", f" {line} ")
    line = _MARK_AFTER_NON_DIGIT.sub(r"\1 \2 ", line)
    line = _MARK_BEFORE_NON_DIGIT.sub(r" \1 \2", line)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", line).split()


def tokens_rouge(text: str) -> list[str]:
    return _ROUGE_WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int) -> Grams:
    return Counter(zip(*(tokens[k:] for k in range(n)), strict=False))


def overlap(a: Grams, b: Grams) -> int:
    """Clipped count: each n-gram counts as often as it occurs on both sides."""
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    return sum(min(count, large[gram]) for gram, count in small.items() if gram in large)


def sentence_bleu(report: Sequence[Grams], reference: Sequence[Grams]) -> tuple[float, dict[str, Any]]:
    """BP · exp(mean log p_n), n up to the report's longest n-gram; the k-th p_n without match is 1 / (2^k · total)."""
    totals = [grams.total() for grams in report]
    matches = [overlap(a, b) for a, b in zip(report, reference, strict=True)]
    words, reference_words = totals[0], reference[0].total()
    if not any(matches):
        return 0.0, {"precisions": [0.0] * ORDER, "brevity": 1.0}
    brevity = math.exp(1 - reference_words / words) if words < reference_words else 1.0
    precisions, smoothing = [], 1.0
    for match, total in zip(matches, totals, strict=True):
        if total == 0:
            break
        if match == 0:
            smoothing *= 2
        precisions.append(match / total if match else 1 / (smoothing * total))
    score = brevity * math.exp(sum(map(math.log, precisions)) / len(precisions))
    return min(score, 1.0), {"precisions": precisions, "brevity": brevity}


def corpus_bleu_coco(hyps: Sequence[str], refs: Sequence[str], order: int = ORDER) -> float:
    """Corpus BLEU in the COCO captioning form: white-space words, case kept, counts pooled over the corpus.

    p_n = (matches + 1e-15) / (total + 1e-9); geometric mean; times exp(1 - 1/ratio) when the length ratio is below 1.
    """
    if len(hyps) != len(refs):
        raise ValueError(f"{len(hyps)} reports but {len(refs)} references")
    tiny, small = 1e-15, 1e-9
    pairs = [(hyp.split(), ref.split()) for hyp, ref in zip(hyps, refs, strict=True)]
    product = 1.0
    for n in range(1, order + 1):
        grams = [(ngrams(hyp, n), ngrams(ref, n)) for hyp, ref in pairs]
        product *= (sum(overlap(h, r) for h, r in grams) + tiny) / (sum(h.total() for h, _ in grams) + small)
    ratio = (sum(len(hyp) for hyp, _ in pairs) + tiny) / (sum(len(ref) for _, ref in pairs) + small)
    return product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def f_measure(match: int, report_total: int, reference_total: int) -> tuple[float, dict[str, Any]]:
    """2PR / (P + R), 0 when nothing matches."""
    if not match:
        return 0.0, {"precision": 0.0, "recall": 0.0}
    precision, recall = match / report_total, match / reference_total
    return 2 * precision * recall / (precision + recall), {"precision": precision, "recall": recall}


def rouge_n_score(report: Grams, reference: Grams) -> tuple[float, dict[str, Any]]:
    return f_measure(overlap(report, reference), report.total(), reference.total())


def rouge_l_score(report: Sequence[str], reference: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """F over the longest common subsequence of words, the whole text taken as one sentence."""
    return f_measure(LCSseq.similarity(report, reference), len(report), len(reference))


def bleu4() -> TextJudge:
    def encode(text: str) -> list[Grams]:
        tokens = tokens_13a(text)
        return [ngrams(tokens, n) for n in range(1, ORDER + 1)]

    return TextJudge("bleu4", "1 effective order, exp smoothing, 13a", encode, sentence_bleu)


def rouge_1() -> TextJudge:
    return _rouge_n(1)


def rouge_2() -> TextJudge:
    return _rouge_n(2)


def _rouge_n(n: int) -> TextJudge:
    def compare(report: Grams, reference: Grams) -> tuple[float, dict[str, Any]]:
        if not reference:
            raise Abstain(f"the reference has fewer than {n} words that ROUGE counts (a-z, 0-9)")
        return rouge_n_score(report, reference)

    return TextJudge(f"rouge_{n}", "1 no stemmer", lambda text: ngrams(tokens_rouge(text), n), compare)


def rouge_l() -> TextJudge:
    def compare(report: list[str], reference: list[str]) -> tuple[float, dict[str, Any]]:
        if not reference:
            raise Abstain("the reference has no words that ROUGE counts (a-z, 0-9)")
        return rouge_l_score(report, reference)

    return TextJudge("rouge_l", "1 no stemmer", tokens_rouge, compare)
