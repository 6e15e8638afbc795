"""The format judge: the report stands between <report> and </report> and nothing stands outside (VALOR's format reward).

1 when it does, else 0. As a gate, `gate(format, finding_f1)` counts the other judge only where the format is right and
lets it see the report alone; added to another reward it would pay for form whatever the text says.
"""

from __future__ import annotations

from collections.abc import Sequence

from chexalign.data.tags import body_of
from chexalign.judges.columns import raw_form
from chexalign.judges.contract import Judgement, Studies
from chexalign.judges.request import RewardRequest


class Format:
    """It looks at what the policy wrote where that is known (`policy.wrap`), since reports come without their tags then."""

    name, version, context = "format", "1", frozenset[str]()

    @raw_form
    def score(self, reports: Sequence[str], references: Sequence[str], studies: Studies = None) -> list[Judgement]:
        """Reads the text alone; `reward` knows what the policy wrote (`RewardRequest`). The references are not read."""
        return self.reward(RewardRequest(reports, references))

    def reward(self, request: RewardRequest) -> list[Judgement]:
        """Whether each text has the form, with its body in the details; one entry per report."""
        found = [body_of(text) for text in (request.reports if request.written is None else request.written)]
        return [
            Judgement(0.0 if wrong else 1.0, details={"body": body, **({"wrong": wrong} if wrong else {})})
            for body, wrong in found
        ]


def format_judge() -> Format:
    """0 or 1, without options; VALOR adds it to the reward of both its stages."""
    return Format()
