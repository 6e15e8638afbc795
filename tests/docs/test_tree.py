"""The README's tree names every folder and file of the package's root, no more and no less, each with a comment."""

import re

from tests.docs.blocks import ROOT

PACKAGE = ROOT / "src/chexalign"
UNSAID = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}


def tree() -> dict[str, str]:
    """Path as printed → comment."""
    block = re.search(r"^```\n(recipes/ .*?)^```", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert block
    lines = [re.match(r"[├└─ ]*(\S+)\s+(.*)$", line) for line in block[1].splitlines() if line != "src/chexalign/"]
    return {m[1]: m[2] for m in lines if m}


def test_the_tree_is_the_packages():
    inside = {p.name + "/" * p.is_dir() for p in PACKAGE.iterdir() if p.name not in UNSAID}
    assert set(tree()) == inside | {"recipes/", "tests/", "benchmarks/", "docs/"}


def test_every_line_of_the_tree_has_a_comment_of_its_own():
    comments = list(tree().values())
    assert all(comments) and len(set(comments)) == len(comments)


def test_the_readme_stays_short():
    prose = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert len(prose.split()) < 700
