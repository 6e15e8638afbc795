"""The house rules that a machine can check: imports point downwards, files stay short, nothing works at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src/chexalign"
FILES = sorted(SOURCE.rglob("*.py"))
OURS = "chexalign"
# The floors of the house from the bottom up: a room may import its own floor's room (itself) and what lies on lower floors.
FLOORS = (
    {"errors", "records", "results", "versions", "stats", "losses", "cleaning"},
    {"processes", "corpus"},
    {"jsonl", "progress"},
    {"recipe", "labels", "llm"},
    {"data"},
    {"policies", "judges", "report"},
    {"run", "scorecard"},
    {"train"},
    {"evaluation", "review"},
    {"stages"},
    {"sweep"},
    {"cli"},
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
MAY_IMPORT = {  # rooms that may import less than all that lies below them
    "records": set(),
    "results": set(),
    "errors": set(),
    "cleaning": {"cleaning"},
    "losses": {"losses"},
    "stats": set(),
    "corpus": {"records", "stats"},
    "report": {"report", "errors", "records", "results", "stats", "corpus", "data", "jsonl"},
    "recipe": {"recipe", "errors"},
    "labels": {"labels", "cleaning", "errors", "records"},
    "llm": {"llm", "errors"},
    "policies": {
        "policies",
        "cleaning",
        "errors",
        "records",
        "jsonl",
        "progress",
        "processes",
        "recipe",
        "data",
        "llm",
        "losses",
    },
    "judges": {"judges", "cleaning", "errors", "records", "data", "labels", "llm"},
    "train": set(FLOOR) - {"run", "scorecard", "evaluation", "review", "stages", "sweep", "cli", "report"},
}
LEAVES = {"report", "cli"}  # nobody imports these, but that the command line writes reports, and review fills its page


def imports(path: Path) -> set[str]:
    """The parts of ours that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = (
            [node.module]
            if isinstance(node, ast.ImportFrom) and node.module
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        found |= {(n.split(".") + [""])[1] for n in names if n.split(".")[0] == OURS}
        if isinstance(node, ast.ImportFrom) and node.module == OURS:
            found |= {a.name for a in node.names}
    return found - {"", "__version__"}


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards(path):
    mine, used = part(path), imports(path)
    if mine in ("__init__", "__main__"):
        return
    if mine not in LEAVES:
        assert not used & (LEAVES - {"report"} if mine == "review" else LEAVES), f"{path.name} imports a leaf"
    assert {room for room in used - {mine} if FLOOR[room] >= FLOOR[mine]} == set()
    if mine in MAY_IMPORT:
        assert used <= MAY_IMPORT[mine], used - MAY_IMPORT[mine]


def test_every_room_has_its_floor():
    assert {part(p) for p in FILES} - {"__init__", "__main__"} == set(FLOOR)


def test_no_circle_between_packages():
    """Folders with a dot in their name count too: chexalign.policies.forward must not import what imports it."""
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        room = str(path.relative_to(SOURCE).parent)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(OURS + "."):
                target = SOURCE.joinpath(*node.module.split(".")[1:])
                other = str((target if target.is_dir() else target.parent).relative_to(SOURCE))
                if "." not in (other, room) and other != room:
                    arrows.setdefault(room, set()).add(other)

    def reaches(start: str, goal: str) -> bool:
        seen, todo = set(), [start]
        while todo:
            here = todo.pop()
            for there in arrows.get(here, ()):
                if there == goal:
                    return True
                if there not in seen:
                    seen.add(there)
                    todo.append(there)
        return False

    assert [room for room in arrows if reaches(room, room)] == []


def test_losses_import_torch_and_nothing_else_of_weight():
    for path in (SOURCE / "losses").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert all(a.name.split(".")[0] == "torch" for a in node.names)
            if isinstance(node, ast.ImportFrom) and node.module not in ("__future__",):
                assert node.module.split(".")[0] == "torch" or node.module.startswith("chexalign.losses")


def test_files_stay_short():
    sizes = {str(p.relative_to(SOURCE)): len(p.read_text().splitlines()) for p in FILES}
    assert not {n: s for n, s in sizes.items() if s > 350}
    assert sorted(sizes.values())[len(sizes) // 2] <= 160


def test_functions_stay_short():
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60:
                long.append(f"{path.name}:{node.lineno} {node.name}")
    assert not long


# Functions that may take more than six arguments: losses by their formulas, judges by their options, and verl's own
# signatures. The list may get shorter, never longer.
LONG_SIGNATURES = {
    "bertscore.bertscore",
    "chexbert_f1.chexbert_f1",
    "oracle.ln_dpo",
    "preference.kto",
    "preference.lc_dpo",
    "verl.compute_score",
    "verl.compute_scores",
    "visual.visual",
}


def test_no_new_function_takes_more_than_six_parameters():
    found = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if sum(name not in ("self", "cls") for name in names) > 6:
                    found.add(f"{path.stem}.{node.name}")
    assert found <= LONG_SIGNATURES, found - LONG_SIGNATURES


@pytest.mark.parametrize(
    "module", ["chexalign", "chexalign.cli", "chexalign.judges", "chexalign.recipe", "chexalign.report"]
)
def test_light_modules_import_without_torch(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_failure_is_swallowed(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            assert caught not in ("", "Exception", "BaseException"), f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)


def test_no_circle_between_files():
    """Of the imports at the top of files; one inside a function waits until it is needed."""
    modules = {
        ".".join((OURS, *p.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): p for p in FILES
    }
    arrows = {
        name: {
            target
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module
            for target in (node.module, *(f"{node.module}.{a.name}" for a in node.names))
            if target in modules and target != name and not (target == node.module and path.name == "__init__.py")
        }
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for target in sorted(arrows[name]):
                if not target.startswith(f"{name}."):  # a face names what lies in its own folder
                    visit(target, (*way, name))
            done.add(name)

    for name in modules:
        visit(name, ())
