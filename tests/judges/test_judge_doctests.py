"""The examples in the judges' docstrings are run."""

import doctest

import chexalign.judges


def test_the_examples_of_judges_load_hold():
    found = doctest.testmod(chexalign.judges)
    assert found.attempted >= 5 and not found.failed
