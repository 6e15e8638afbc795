"""The report is a leaf: it imports little of ours, and no stage imports it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import chexalign

SOURCE = Path(chexalign.__file__).parent
ALLOWED = tuple(
    f"chexalign.{room}"
    for room in ("errors", "jsonl", "records", "results", "stats", "corpus", "data.SOURCES", "report")
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("chexalign.")}


def test_report_imports_only_the_result_side() -> None:
    for path in (SOURCE / "report").rglob("*.py"):
        assert [name for name in imports(path) if not name.startswith(ALLOWED) and name != "chexalign.data"] == [], (
            path.name
        )


def test_only_the_command_line_and_the_review_page_import_the_report() -> None:
    users = [p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).parts[0] not in ("report", "cli", "review")]
    assert [p.name for p in users if any(name.startswith("chexalign.report") for name in imports(p))] == []


def test_the_template_never_switches_escaping_off() -> None:
    for path in (SOURCE / "report").rglob("*.html.j2"):
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", path.read_text(encoding="utf-8")), path.name
