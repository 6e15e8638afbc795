"""The judges: one table from a name to how it is made, and `load`. Importing this imports no judge.

    >>> from chexalign.judges import load
    >>> judge = load("chexpert_rule_f1")     # or a recipe line: "gate(format, 0.7*lc_finding_f1 + 0.3*rouge_l)"
    >>> [answer.score for answer in judge.score(["Left effusion.", "Normal."], ["Small left effusion."] * 2)]
    [1.0, 0.0]

To add a judge, write a file with a function that returns one (see contract.py) and add its line to JUDGES.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chexalign.errors import RecipeError
from chexalign.judges.registry import JUDGES, JudgeEntry, Options

if TYPE_CHECKING:
    from chexalign.judges.contract import Judge

__all__ = ["JUDGES", "JudgeEntry", "Options", "from_recipe", "load"]


def load(line: str, **options: Any) -> Judge:
    """The judge of this recipe line; `options` go to its one plain judge (name them by judge with `from_recipe`).

    >>> answer = load("rouge_l").score(["No pneumothorax."], [""])[0]
    >>> answer.score, answer.error          # a judge that cannot answer says why; it never says 0 for that
    (None, 'the reference is empty')

    Raises RecipeError for a line that cannot be read, an unknown judge or an unknown option, naming the nearest.
    """
    from chexalign.judges.line import parse, plain_names

    names = plain_names(line)
    if options and len(names) != 1:
        raise RecipeError(f"judge {line!r}: options need a line with one judge; use from_recipe for several")
    return parse(line, dict.fromkeys(names, options) if options else {})


def from_recipe(line: str, options: Options, context: frozenset[str] = frozenset()) -> Judge:
    """The judge of a recipe line with the recipe's `judges:` section; the same one for the same line and options.

    One judge per process and line, so that each text is encoded once per run. `context` is what the caller can show it:
    "group" and "step" in online training. Raises WorkError when a part of it cannot run here, RecipeError when the line
    or an option is wrong or it needs what the caller cannot show.
    """
    from chexalign.judges.contract import context_of
    from chexalign.judges.line import shared

    judge = shared(line, options)
    if lacks := sorted(context_of(judge) - context):
        raise RecipeError(
            f"judge {line!r} looks at the {' and '.join(lacks)}: it is a reward for online training, not a score"
        )
    return judge
