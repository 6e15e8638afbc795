"""The Python of README and docs runs, and its recipes load; what is not run says so on the page."""

import ast
import sys
import types
from collections import defaultdict
from typing import Any

import pytest
from tests.docs.blocks import Block, blocks

from chexalign.data import check_sources
from chexalign.judges.registry import JUDGES
from chexalign.recipe.files import build_recipe, parse_yaml

SMALL = {  # what a fragment of a recipe is laid on
    "name": "fragment",
    "studies": {"source": "phantom"},
    "policy": {"model": "/models/mine"},
}
BY_PAGE: dict[Any, list[Block]] = defaultdict(list)
for _block in blocks("python"):
    BY_PAGE[_block.page].append(_block)


def laid_over(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both mappings; where both have a section, the second one's settings win."""
    both = {k: laid_over(base[k], v) for k, v in more.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | more | both


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_recipe_and_part_of_one_is_read(block):
    raw = parse_yaml(block.text)
    assert isinstance(raw, dict)
    recipe = raw if "name" in raw else laid_over(SMALL, raw)
    assert set(recipe.get("judges", {})) <= set(JUDGES)
    if "judges" in raw.get("score", {}) and "pairs" not in raw:
        recipe |= {"pairs": {"judge": raw["score"]["judges"][0]}}
    if "studies" in raw:
        recipe["studies"] = raw["studies"]
    check_sources(build_recipe(recipe, str(block)).studies)


@pytest.mark.parametrize("page", BY_PAGE, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """The blocks of a page run in their order. One that opens with a path of the package is that module."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    for block in BY_PAGE[page]:
        code = compile(ast.parse(block.text), str(block), "exec")
        if not block.is_run:
            continue
        first = block.text.partition("\n")[0]
        if first.startswith("# src/chexalign/"):
            name = first.removeprefix("# src/").removesuffix(".py").replace("/", ".")
            module = types.ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            exec(code, module.__dict__)
        else:
            exec(code, names)


@pytest.fixture(autouse=True)
def _tables_as_they_were():
    """What an example enters into a table is gone after it."""
    from chexalign.data import SOURCES
    from chexalign.train.online.algorithms import ONLINE
    from chexalign.train.preference.algorithms import ALGORITHMS

    kept: list[tuple[dict[str, Any], dict[str, Any]]] = [(t, dict(t)) for t in (JUDGES, SOURCES, ALGORITHMS, ONLINE)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)
