"""The format judge: the report stands between <report> and </report> and nothing stands outside (VALOR's format reward).

1 when it does, else 0. As a gate, `gate(format, finding_f1)` counts the other judge only where the format is right and
lets it see the report alone; added to another reward it would pay for form whatever the text says.
"""

from __future__ import annotations

from collections.abc import Sequence

from chexalign.data.tags import body_of
from chexalign.judges.contract import Judgement, Studies, same_length


class Format:
    """It looks at what the policy wrote where that is known (`policy.wrap`), since reports come without their tags then."""

    name, version, context = "format", "1", frozenset[str]()

    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        return self.reward(reports, references)

    def reward(
        self,
        reports: Sequence[str],
        references: Sequence[str],
        studies: Studies = None,
        group_ids: Sequence[str] | None = None,
        step: int | None = None,
        written: Sequence[str] | None = None,
    ) -> list[Judgement]:
        same_length(reports, references, written)
        found = [body_of(text) for text in (reports if written is None else written)]
        return [
            Judgement(0.0 if wrong else 1.0, details={"body": body, **({"wrong": wrong} if wrong else {})})
            for body, wrong in found
        ]


def format_judge() -> Format:
    return Format()
