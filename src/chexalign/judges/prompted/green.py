"""GREEN (Ostmeier et al., EMNLP 2024): a language model counts matched findings and errors of a report.

score = matched / (matched + significant errors), and 0 when nothing matched; insignificant errors do not count. The prompt
is the model's input format and is kept word for word (prompts/green.txt, from the authors' MIT-licensed green_score). Both
texts are first cleaned as CheXalign does, and cut at 300 words as the authors do: what follows is not judged.

Two ways to read an answer. `strict` (default) abstains with `parse_failed: …` where the answer lacks what the score needs.
`official` gives what green_score 0.0.12 gives, its quirks included: an answer without matched findings is 0, one without
errors is 1.0, a count without its full stop is 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chexalign.errors import Abstain
from chexalign.judges.columns import library_form
from chexalign.judges.contract import Judgement, Studies, same_length, without_judging
from chexalign.judges.prompted.base import LlmJudge, abstained, fill, prompt_text
from chexalign.judges.prompted.parsing import parse_failed
from chexalign.llm.reply import Prompt, Reply, user

WORDS = 300
LETTERS = "abcdef"  # false, missing, location, severity, comparison added, comparison left out
SIGNIFICANT, MATCHED = "Clinically Significant Errors", "Matched Findings"


@dataclass(kw_only=True)
class Green(LlmJudge):
    """`turns`: how the prompt is put: `green` is the turn markers GREEN-radllama2 was trained with, as raw text; `chat` is
    the model's own chat form; `auto` is `green` for a model with "radllama2" in its name."""

    parser: Literal["strict", "official"] = "strict"
    clean: bool = True
    turns: Literal["auto", "green", "chat"] = "auto"

    kind = "green"

    @property
    def name(self) -> str:
        """GREEN by another model than GREEN's own, or by a file of answers, says so in its name."""
        return "green" if self.model and "green" in self.model_name.lower() else f"green[{self.model_name}]"

    @property
    def version(self) -> str:
        """Prompt, parser, cleaning and turn markers: each changes what the model is asked or how it is read."""
        _, prompt = prompt_text("green.txt")
        cleaned = "cleaned" if self.clean else "as is"
        turns = "green" if self._raw() else "chat"
        return f"1 prompt {prompt}, {self.parser} parser, {cleaned}, {turns} turns, {self.llm_version}"

    @library_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """Matched findings over matched findings and significant errors, 0 to 1. An answer that cannot be parsed abstains."""
        same_length(reports, references)
        tidy = pre_clean if self.clean else str.strip
        pairs = [(tidy(report), tidy(reference)) for report, reference in zip(reports, references, strict=True)]
        plain = {i: a for i, pair in enumerate(pairs) if (a := without_judging(*pair)) is not None}
        asked = [i for i in range(len(pairs)) if i not in plain]
        replies = self.ask([self._prompt(*pairs[i]) for i in asked])
        answers = plain | {i: self._judge(reply) for i, reply in zip(asked, replies, strict=True)}
        return [answers[i] for i in range(len(pairs))]

    def _raw(self) -> bool:
        return self.turns == "green" or (self.turns == "auto" and "radllama2" in (self.model or "").lower())

    def _prompt(self, report: str, reference: str) -> Prompt:
        prompt = make_prompt(report, reference)
        return f"<|user|>\n{prompt}</s>\n<|assistant|>\n</s>\n<|assistant|>\n" if self._raw() else user(prompt)

    def _judge(self, reply: Reply | Abstain) -> Judgement:
        if isinstance(reply, Abstain):
            return abstained(reply)
        try:
            matched, errors = (read_strict if self.parser == "strict" else read_official)(reply.text)
        except Abstain as reason:
            return abstained(reason, **reply.facts())
        counts = dict(zip(LETTERS, errors, strict=True))
        return Judgement(green(matched, errors), details={"matched": matched, "significant": counts, **reply.facts()})


def pre_clean(text: str) -> str:
    """CheXalign's: without [bracketed] parts and **, single spaces, lower case."""
    return " ".join(re.sub(r"\[.*?\]", "", text).replace("**", "").split()).lower()


def make_prompt(report: str, reference: str) -> str:
    """GREEN's prompt; both texts are cut after WORDS white-space words."""
    cut = [" ".join(text.split()[:WORDS]) for text in (reference, report)]
    return fill(prompt_text("green.txt")[0], REFERENCE=cut[0], CANDIDATE=cut[1])


def green(matched: int, errors: Sequence[int]) -> float:
    """matched / (matched + Σ significant errors); 0 when nothing matched."""
    return matched / (matched + sum(errors)) if matched else 0.0


def read_official(text: str) -> tuple[int, list[int]]:
    """Matched findings and the six error counts, as green_score 0.0.12 reads them; what is not there counts 0."""
    matched = re.match(r"\d+\b(?=\.)", _official_section(text, MATCHED))
    body = _official_section(text, SIGNIFICANT)
    lines, names = sorted(re.findall(r"\([a-f]\) .*", body)), LETTERS
    if not lines:
        lines, names = sorted(re.findall(r"\([1-6]\) .*", body)), "123456"
    counts = [0] * 6
    for line in lines:
        if count := re.search(r"(?<=: )\b\d+\b(?=\.)", line):
            counts[names.index(line[1])] = int(count[0])
    return int(matched[0]) if matched else 0, counts


def _official_section(text: str, name: str) -> str:
    found = re.search(rf"\[{name}\]:\s*(.*?)(?:\n\s*\n|\Z)", text, re.DOTALL)
    return found[1] if found and not found[1].startswith("No") else ""


def read_strict(text: str) -> tuple[int, list[int]]:
    """The same, or Abstain (`parse_failed: …`) where the answer leaves a count open. A letter that is left out is 0."""
    return _strict_matched(_strict_section(text, MATCHED)), _strict_errors(_strict_section(text, SIGNIFICANT))


def _strict_section(text: str, name: str) -> str:
    """All up to the next section, the end of a fence or the end."""
    found = re.findall(rf"\[{name}\]:[^\S\n]*(.*?)(?=\n\s*\[|\n\s*```|\Z)", text, re.DOTALL)
    if len(found) != 1:
        raise parse_failed(f"{len(found) or 'no'} [{name}] section{'s' if len(found) > 1 else ''}")
    return found[0].strip()


def _strict_matched(body: str) -> int:
    if re.match(r"(No|None)\b", body):
        return 0
    first, *others = body.split("\n\n")[0].splitlines() or [""]
    count = re.match(r"(\d+)\.(?!\d)", first)
    if not count or any(re.match(r"\s*\d+\.", line) for line in others):
        raise parse_failed(f"[{MATCHED}] does not start with its one count: {body[:60]!r}")
    return int(count[1])


def _strict_errors(body: str) -> list[int]:
    if re.match(r"(No|None)\b", body):
        return [0] * 6
    counts: dict[str, int] = {}
    for line in filter(str.strip, body.splitlines()):
        found = re.fullmatch(r"[\s*-]*\(([a-f1-6])\)[^:]*:\s*(\d+)\s*(?:\.(?!\d).*)?", line)
        if not found:
            raise parse_failed(f"[{SIGNIFICANT}] has a line that is no (letter) error: count. {line.strip()[:60]!r}")
        letter = found[1] if found[1] in LETTERS else LETTERS[int(found[1]) - 1]
        if counts.setdefault(letter, int(found[2])) != int(found[2]):
            raise parse_failed(f"[{SIGNIFICANT}] has two counts for ({letter})")
    if not counts:
        raise parse_failed(f"[{SIGNIFICANT}] is empty")
    return [counts.get(letter, 0) for letter in LETTERS]
