"""The judges: one table from a name to how it is made, and `load`. Importing this imports no judge.

    judge = chexalign.judges.load("finding_f1")            # or "lc_finding_f1", length-controlled
    judge.score(["Small left effusion."], ["Left effusion."])[0].score

To add a judge, write a file with a function that returns one (see contract.py) and add its line to JUDGES.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from chexalign.errors import RecipeError

if TYPE_CHECKING:
    from chexalign.judges.contract import Judge

LC = "lc_"


@dataclass(frozen=True)
class JudgeEntry:
    """`where` is module:function, called without arguments; the rest is for the reader who must choose."""

    where: str
    description: str
    range: str
    needs: str
    blind_to: str

    def make(self) -> Judge:
        module, function = self.where.split(":")
        return getattr(import_module(f"chexalign.judges.{module}"), function)()


JUDGES: dict[str, JudgeEntry] = {
    "bleu4": JudgeEntry(
        "lexical:bleu4",
        "BLEU-4 of one report: shared runs of one to four words, smoothed (sacrebleu's sentence form)",
        "0 to 1",
        "nothing",
        "meaning: denying a finding costs little, a correct paraphrase gets about 0",
    ),
    "rouge_1": JudgeEntry(
        "lexical:rouge_1", "ROUGE-1 F: shared words", "0 to 1", "nothing", "meaning, negation, and the order of words"
    ),
    "rouge_2": JudgeEntry(
        "lexical:rouge_2", "ROUGE-2 F: shared pairs of words", "0 to 1", "nothing", "meaning, negation, paraphrase"
    ),
    "rouge_l": JudgeEntry(
        "lexical:rouge_l",
        "ROUGE-L F: longest common subsequence of words",
        "0 to 1",
        "nothing",
        "meaning: denying a finding costs one word, a correct paraphrase gets about 0",
    ),
    "chexpert_rule_f1": JudgeEntry(
        "findings:chexpert_rule_f1",
        "F1 of the positive findings, 13 CheXpert labels by rules; uncertain counts as positive",
        "0 to 1",
        "nothing",
        "side, zone, size, doubt, repetition, findings outside the 13; 1 for any normal text on a normal study",
    ),
    "finding_f1": JudgeEntry(
        "findings:finding_f1",
        "F1 of the findings with partial credit for certainty, side, zone and extent, by rules",
        "0 to 1",
        "nothing",
        "repetition, added detail, change over time, findings outside the 13; 1 for any normal text on a normal study",
    ),
}


def load(name: str) -> Judge:
    """The judge of this name, length-controlled with `lc_` in front. Raises RecipeError for a name not in JUDGES."""
    plain = name.removeprefix(LC)
    if plain not in JUDGES:
        raise RecipeError(_unknown(name))
    judge = JUDGES[plain].make()
    if plain == name:
        return judge
    from chexalign.judges.combine import length_controlled

    return length_controlled(judge)


def _unknown(name: str) -> str:
    prefix = LC if name.startswith(LC) else ""
    nearest = difflib.get_close_matches(name.removeprefix(LC), JUDGES, n=1, cutoff=0.0)[0]
    known = f"{', '.join(JUDGES)}; any of them with {LC} in front"
    return f"unknown judge {name!r}; did you mean {prefix}{nearest}? Judges: {known}"
