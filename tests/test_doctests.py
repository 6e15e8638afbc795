"""Every example in a docstring is run and true, wherever it stands in the package."""

import doctest
import importlib
from pathlib import Path

import pytest

import chexalign

ROOT = Path(chexalign.__file__).parent
EXAMPLES = {  # module → how many
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): text.count("\n    >>> ")
    + text.count("\n        >>> ")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in (text := path.read_text(encoding="utf-8"))
}


def test_what_a_newcomer_calls_first_has_examples():
    assert {"chexalign.judges", "chexalign.policies.policy", "chexalign.losses.preference"} <= set(EXAMPLES)


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_of_a_module_are_true(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted == EXAMPLES[module] > 0 and not found.failed
