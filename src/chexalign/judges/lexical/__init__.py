"""Word overlap: BLEU-1 to -4 and ROUGE-1, -2 and -L.

The judges `bleu1` … `bleu4` are the sentence form that sacrebleu 2.6 gives for `BLEU(effective_order=True)`, divided by
100 (Papineni et al. 2002; exponential smoothing, Chen and Cherry 2014). `corpus_bleu_coco` is the other BLEU, the one of
the report-generation literature, for tables only: without smoothing BLEU-4 is 0 for nearly every single report.
ROUGE equals rouge_score 0.1.2 (Lin 2004), by default without its stemmer; `use_stemmer` turns it on.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rapidfuzz.distance import LCSseq

from chexalign.errors import Abstain
from chexalign.judges.contract import TextJudge, same_length

ORDER = 4
Grams = Counter[tuple[str, ...]]

# The 13a tokens of the mteval script: ASCII punctuation stands alone; . and , stay inside numbers, - after a letter.
_ALONE = re.compile(r"([{-~\[-` -&(-+:-@/])")
_MARK_AFTER_NON_DIGIT = re.compile(r"([^0-9])([.,])")
_MARK_BEFORE_NON_DIGIT = re.compile(r"([.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
_ROUGE_WORD = re.compile(r"[a-z0-9]+")


def tokens_13a(text: str) -> list[str]:
    """Tokens of mteval-v13a, BLEU's own: case is kept, ASCII punctuation stands alone, entities are resolved."""
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")):
        line = line.replace(entity, character)
    line = _ALONE.sub(r" \1 ", f" {line} ")
    line = _MARK_AFTER_NON_DIGIT.sub(r"\1 \2 ", line)
    line = _MARK_BEFORE_NON_DIGIT.sub(r" \1 \2", line)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", line).split()


def tokens_rouge(text: str) -> list[str]:
    """Runs of a-z and 0-9 in lower case: all else, letters with accents too, separates words (rouge_score 0.1.2)."""
    return _ROUGE_WORD.findall(text.lower())


@functools.cache
def stemmer() -> Callable[[str], str]:
    """NLTK's Porter stemmer, each word stemmed once. Its import takes a second, so it waits until it is asked for."""
    from nltk.stem.porter import PorterStemmer

    return functools.lru_cache(maxsize=100_000)(PorterStemmer().stem)


def tokens_rouge_stemmed(text: str) -> list[str]:
    """rouge_score's stemmed tokens: words of more than three characters lose their endings."""
    stem = stemmer()
    return [stem(t) if len(t) > 3 else t for t in tokens_rouge(text)]


def ngrams(tokens: Sequence[str], n: int) -> Grams:
    """Counts of n neighbouring tokens; empty where there are fewer than n."""
    return Counter(zip(*(tokens[k:] for k in range(n)), strict=False))


def overlap(a: Grams, b: Grams) -> int:
    """Clipped count: each n-gram counts as often as it occurs on both sides."""
    small, large = (a, b) if len(a) <= len(b) else (b, a)
    return sum(min(count, large[gram]) for gram, count in small.items() if gram in large)


def sentence_bleu(report: Sequence[Grams], reference: Sequence[Grams]) -> tuple[float, dict[str, Any]]:
    """BP · exp(mean log p_n), n up to the order asked or the report's length; the k-th p_n without match is 1 / (2^k · total).

    Both sides are n-gram counts by order, the first of single words.
    """
    totals = [grams.total() for grams in report]
    matches = [overlap(a, b) for a, b in zip(report, reference, strict=True)]
    words, reference_words = totals[0], reference[0].total()
    if not any(matches):
        return 0.0, {"precisions": [0.0] * len(totals), "brevity": 1.0}
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


def coco_counts(report: str, reference: str) -> list[int]:
    """What corpus BLEU pools of one report: words, reference words, then (matches, n-grams) for n = 1 … 4.

    White-space words, case kept. Sums of these over studies go into `coco_bleu`, so it can be bootstrapped over studies.
    """
    hyp, ref = report.split(), reference.split()
    grams = [(ngrams(hyp, n), ngrams(ref, n)) for n in range(1, ORDER + 1)]
    return [len(hyp), len(ref), *(c for h, r in grams for c in (overlap(h, r), h.total()))]


def coco_bleu(totals: Sequence[float], order: int = ORDER) -> float:
    """Corpus BLEU in the COCO captioning form from summed `coco_counts`.

    p_n = (matches + 1e-15) / (n-grams + 1e-9); geometric mean; times exp(1 - 1/ratio) when the length ratio is below 1.
    """
    tiny, small = 1e-15, 1e-9
    product = math.prod((totals[2 * n] + tiny) / (totals[2 * n + 1] + small) for n in range(1, order + 1))
    ratio = (totals[0] + tiny) / (totals[1] + small)
    return product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def corpus_bleu_coco(hyps: Sequence[str], refs: Sequence[str], order: int = ORDER) -> float:
    """BLEU-`order` of a corpus, for tables of results: `coco_bleu` over all pairs."""
    same_length(hyps, refs)
    return coco_bleu([sum(c) for c in zip(*map(coco_counts, hyps, refs), strict=True)] or [0] * (2 + 2 * ORDER), order)


def f_measure(match: int, report_total: int, reference_total: int) -> tuple[float, dict[str, Any]]:
    """2PR / (P + R), 0 when nothing matches."""
    if not match:
        return 0.0, {"precision": 0.0, "recall": 0.0}
    precision, recall = match / report_total, match / reference_total
    return 2 * precision * recall / (precision + recall), {"precision": precision, "recall": recall}


def rouge_n_score(report: Grams, reference: Grams) -> tuple[float, dict[str, Any]]:
    """F of clipped n-gram matches (Lin 2004), 0 to 1. Both sides hold n-grams of one n."""
    return f_measure(overlap(report, reference), report.total(), reference.total())


def rouge_l_score(report: Sequence[str], reference: Sequence[str]) -> tuple[float, dict[str, Any]]:
    """F over the longest common subsequence of words, the whole text taken as one sentence."""
    return f_measure(LCSseq.similarity(report, reference), len(report), len(reference))


def _bleu(order: int) -> TextJudge:
    def encode(text: str) -> list[Grams]:
        tokens = tokens_13a(text)
        return [ngrams(tokens, n) for n in range(1, order + 1)]

    return TextJudge(f"bleu{order}", "1 effective order, exp smoothing, 13a", encode, sentence_bleu)


def bleu1() -> TextJudge:
    """Sentence BLEU of single words, 0 to 1: sacrebleu's number divided by 100."""
    return _bleu(1)


def bleu2() -> TextJudge:
    """Sentence BLEU up to pairs of words, 0 to 1: sacrebleu's number divided by 100."""
    return _bleu(2)


def bleu3() -> TextJudge:
    """Sentence BLEU up to three words, 0 to 1: sacrebleu's number divided by 100."""
    return _bleu(3)


def bleu4() -> TextJudge:
    """Sentence BLEU up to four words, 0 to 1, smoothed: not the corpus BLEU-4 of the report-generation literature."""
    return _bleu(4)


def _rouge_n(n: int, use_stemmer: bool) -> TextJudge:
    def compare(report: Grams, reference: Grams) -> tuple[float, dict[str, Any]]:
        if not reference:
            raise Abstain(f"the reference has fewer than {n} words that ROUGE counts (a-z, 0-9)")
        return rouge_n_score(report, reference)

    tokens, version = _rouge_tokens(use_stemmer)
    return TextJudge(f"rouge_{n}", version, lambda text: ngrams(tokens(text), n), compare)


def _rouge_tokens(use_stemmer: bool) -> tuple[Callable[[str], list[str]], str]:
    return (tokens_rouge_stemmed, "1 Porter stemmer") if use_stemmer else (tokens_rouge, "1 no stemmer")


def rouge_1(*, use_stemmer: bool = False) -> TextJudge:
    """F of single words, 0 to 1. `use_stemmer`: endings of words over three letters are ignored."""
    return _rouge_n(1, use_stemmer)


def rouge_2(*, use_stemmer: bool = False) -> TextJudge:
    """F of pairs of neighbouring words, 0 to 1. `use_stemmer`: endings of words over three letters are ignored."""
    return _rouge_n(2, use_stemmer)


def rouge_l(*, use_stemmer: bool = False) -> TextJudge:
    """F of the longest common subsequence, 0 to 1. Abstains on a reference without a-z and 0-9."""

    def compare(report: list[str], reference: list[str]) -> tuple[float, dict[str, Any]]:
        if not reference:
            raise Abstain("the reference has no words that ROUGE counts (a-z, 0-9)")
        return rouge_l_score(report, reference)

    tokens, version = _rouge_tokens(use_stemmer)
    return TextJudge("rouge_l", version, tokens, compare)
