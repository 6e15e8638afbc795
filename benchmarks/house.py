"""Count the house: rooms, floors, circles, arrows, long functions, docstrings, repeated passages. One JSON line.

python benchmarks/house.py [--root .]      # the checkout whose src/chexalign is counted

Every number is read from the source's syntax trees. A room is a module or folder directly under src/chexalign; an arrow is
one package importing from another (folders at any depth; what lies at the root is counted as rooms of its own); a floor is
the length of the longest way down from a room. A circle is a package that can be reached from itself. A repeated passage is
four consecutive lines that stand in two files, without comments, blank lines, indentation and imports.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

WINDOW = 4  # lines
LONG_LINE = 3  # a passage of lines shorter than this on average is brackets, and no repetition
Function = ast.FunctionDef | ast.AsyncFunctionDef


def imported(tree: ast.Module, files: set[str]) -> Iterator[str]:
    """Dotted names of our modules that a file imports, at the top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "chexalign":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in files else node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "chexalign")


def package(module: str, packages: set[str]) -> str:
    """The folder that a module lies in; a module at the root is its own."""
    parts = module.split(".")
    if module in packages:
        return module
    return module if len(parts) <= 2 else ".".join(parts[:-1])


def reachable(start: str, arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for there in arrows.get(todo.pop(), ()):
            if there not in seen:
                seen.add(there)
                todo.append(there)
    return seen


def floor(room: str, arrows: dict[str, set[str]], above: tuple[str, ...] = ()) -> int:
    """1 for a room that imports none of ours; otherwise one more than the highest that it imports."""
    lower = [floor(r, arrows, (*above, room)) for r in arrows.get(room, ()) if r not in (*above, room)]
    return 1 + max(lower, default=0)


def parameters(node: Function) -> int:
    """How many parameters a function has beside self and cls."""
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return sum(name not in ("self", "cls") for name in names)


def public(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Public functions and classes of a module, and public methods of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                methods = (m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef))
                yield from (m for m in methods if not m.name.startswith("_"))


def passages(source: str) -> list[str]:
    """The windows of WINDOW lines of a file, without comments, blank lines, indentation and imports."""
    lines = [line.split("  #")[0].strip() for line in source.splitlines()]
    lines = [x for x in lines if x and not x.startswith(("#", "import ", "from "))]
    windows = ["\n".join(lines[i : i + WINDOW]) for i in range(len(lines) - WINDOW + 1)]
    return [w for w in windows if len(w) > LONG_LINE * 10 * WINDOW]


def count(root: Path) -> dict[str, object]:
    """The numbers of one checkout."""
    top = root / "src/chexalign"
    sources = {p: p.read_text(encoding="utf-8") for p in sorted(top.rglob("*.py"))}
    trees = {p: ast.parse(text) for p, text in sources.items()}
    names = {p: ".".join(p.relative_to(root / "src").with_suffix("").parts).removesuffix(".__init__") for p in sources}
    packages = {n for p, n in names.items() if p.name == "__init__.py"}
    skipped = {"chexalign", "chexalign.__main__"}
    folders: dict[str, set[str]] = {}
    rooms: dict[str, set[str]] = {}
    for path, tree in trees.items():
        if names[path] in skipped:
            continue
        here = package(names[path], packages)
        room = ".".join(names[path].split(".")[:2])
        rooms.setdefault(room, set())
        for module in imported(tree, set(names.values())):
            there = package(module, packages)
            if there not in (here, *skipped):
                folders.setdefault(here, set()).add(there)
            target = ".".join(module.split(".")[:2])
            if target not in (room, *skipped):
                rooms[room].add(target)
    functions = [
        n for t in trees.values() for n in ast.walk(t) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    repeated = Counter(w for text in sources.values() for w in set(passages(text)))
    return {
        "files": len(sources),
        "rooms": len(rooms),
        "floors": max(floor(room, rooms) for room in rooms),
        "circles_between_folders": sum(f in reachable(f, folders) for f in folders),
        "arrows_between_rooms": sum(map(len, rooms.values())),
        "arrows_between_folders": sum(map(len, folders.values())),
        "longest_file": max(len(text.splitlines()) for text in sources.values()),
        "longest_function": max((n.end_lineno or 0) - n.lineno + 1 for n in functions),
        "functions_over_six_parameters": sum(parameters(n) > 6 for n in functions),
        "public_names": sum(1 for t in trees.values() for _ in public(t)),
        "public_names_without_docstring": sum(ast.get_docstring(n) is None for t in trees.values() for n in public(t)),
        "repeated_passages_between_files": sum(n > 1 for n in repeated.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    print(json.dumps(count(parser.parse_args().root.resolve()), indent=1))


if __name__ == "__main__":
    main()
