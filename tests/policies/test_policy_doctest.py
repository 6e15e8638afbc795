"""What `Policy.load`'s docstring shows is what happens."""

import doctest

from chexalign.policies import policy


def test_the_docstrings_examples_hold():
    result = doctest.testmod(policy)
    assert result.attempted and not result.failed
