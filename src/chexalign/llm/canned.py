"""Answers from a file: for tests, and for answers that were made elsewhere.

A .jsonl file with one object per line, or a .json list of them: {"contains": ["text", …], "answer": "…"}. The first row
whose texts all occur in the prompt answers it; a row without `contains` answers any prompt; {"error": "…"} instead of
`answer` fails. White space and case do not matter. An answer that is an object is given back as its JSON text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chexalign.errors import Abstain, RecipeError
from chexalign.llm.reply import Answer, Passing, Prompt, Reply, Usage


@dataclass
class Canned:
    """A Backend over the rows of a file. Tokens are words: there is no tokenizer here."""

    path: Path
    usage: Usage

    def __post_init__(self) -> None:
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"answers {self.path}: {error.strerror}") from error
        self.version = hashlib.sha256(text.encode()).hexdigest()[:12]
        lines = text.splitlines() if self.path.suffix == ".jsonl" else [text]
        self.rows = []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self.rows += _rows(f"{self.path}:{number}" if len(lines) > 1 else str(self.path), line)

    def __call__(self, prompts: Sequence[Prompt]) -> list[Answer]:
        return [self._answer(p if isinstance(p, str) else "\n".join(text for _, text in p)) for p in prompts]

    def _answer(self, prompt: str) -> Answer:
        self.usage.add(requests=1)
        plain = _plain(prompt)
        for row in self.rows:
            if all(_plain(part) in plain for part in row.get("contains", ())):
                if "error" in row:
                    return Passing(str(row["error"]))
                answer = row["answer"]
                text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
                self.usage.add(prompt_tokens=len(prompt.split()), completion_tokens=len(text.split()))
                return Reply(text, len(prompt.split()), len(text.split()))
        return Abstain(f"no row of {self.path} answers this prompt")


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _rows(where: str, line: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecipeError(f"answers {where}: invalid JSON ({error.msg} at column {error.colno})") from error
    rows = value if isinstance(value, list) else [value]
    for row in rows:
        if not isinstance(row, dict) or not {"answer", "error"} & row.keys():
            raise RecipeError(f'answers {where}: a row is {{"contains": […], "answer": …}} or {{…, "error": …}}')
        if not isinstance(row.get("contains", []), list) or not all(
            isinstance(t, str) for t in row.get("contains", [])
        ):
            raise RecipeError(f"answers {where}: `contains` is a list of texts")
    return rows
