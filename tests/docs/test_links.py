"""Every relative link, anchor and path that README, docs and messages name leads somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

from chexalign.data import SOURCES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^(```|~~~).*?^\1", flags=re.M | re.S)
TOP = ("src", "tests", "docs", "benchmarks", "recipes", "requirements")  # folders whose paths the words name in full


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The ids that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def links(page: Path) -> list[tuple[Path, str]]:
    """(target, anchor) of each relative link of a page."""
    found = [t.partition("#") for t in LINK.findall(CODE.sub("", page.read_text())) if not re.match(r"[a-z]+:", t)]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in found]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page):
    for target, anchor in links(page):
        assert target.exists(), f"{target} is missing"
        assert ROOT in target.parents, f"{target} is outside of the repository"
        if anchor:
            assert anchor in anchors(target), f"{name_of(target)} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_in_backticks_exists(page):
    words = re.findall(r"`([\w./-]+)`", page.read_text())
    whole = [w for w in words if w.startswith(tuple(f"{top}/" for top in TOP))]
    assert [w for w in whole if not (ROOT / w).exists()] == []
    inside = [w for w in words if re.fullmatch(r"[a-z_0-9]+(/[\w]+)+\.(py|toml|txt)", w) and w not in whole]
    assert [w for w in inside if not (ROOT / "src/chexalign" / w.removeprefix("chexalign/")).exists()] == []


def test_every_page_that_the_code_names_exists():
    folders = ["src", "benchmarks", "recipes", "tests", "Makefile"]
    asked = ["git", "grep", "-hoIE", r"docs/[a-z_/-]+\.(md|png|svg)", "--", *folders]
    named = set(subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert named and {path for path in named if not (ROOT / path).exists()} == set()


def test_every_page_is_reached_from_the_index():
    reached = {target for target, _ in links(ROOT / "docs/index.md")}
    assert set(PAGES) - {ROOT / "README.md", ROOT / "docs/index.md"} <= reached


def test_every_source_is_on_the_page_of_sources():
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/use/data.md").read_text(), flags=re.M)
    assert sorted(listed) == sorted(SOURCES)


def test_every_recipe_is_on_the_page_of_recipes():
    listed = re.findall(r"^\| `recipes/(\w+)\.yaml` \|", (ROOT / "docs/use/recipes.md").read_text(), flags=re.M)
    assert sorted(listed) == sorted(p.stem for p in (ROOT / "recipes").glob("*.yaml"))


def test_every_page_is_in_the_sites_navigation():
    named = re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M)
    assert sorted(named) == sorted(str(p.relative_to(ROOT / "docs")) for p in PAGES if p.name != "README.md")
