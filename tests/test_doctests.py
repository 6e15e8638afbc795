"""The examples in the docstrings of the pure modules are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["chexalign.losses.preference", "chexalign.losses.advantages", "chexalign.stats"])
def test_the_examples_of_a_module_are_true(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed
