"""What the site has beside the pages: a reference page for each package, and a page for each file that a page links to."""

import ast
import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/chexalign"
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")
KINDS = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".json": "json", ".md": "markdown"}


def rooms() -> dict[str, list[str]]:
    """Each package's dotted name → its public modules, the package itself first. What has no docstrings stays away."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("chexalign", *path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__main__":
            continue
        package = ".".join(parts[:-1])
        found.setdefault(package, []).append(package if parts[-1] == "__init__" else ".".join(parts))
    return dict(sorted(found.items()))


def reference(module: str) -> str:
    """The directive for a module's docstrings. A package shows what its own file defines, and not what it passes on."""
    file = PACKAGE.joinpath(*module.split(".")[1:], "__init__.py")
    if not file.is_file():
        return f"::: {module}\n"
    defined = [n.name for n in ast.parse(file.read_text()).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return f"::: {module}\n    options:\n      members: {defined}\n"


def reference_page(room: str) -> str:
    return f"reference/{room.removeprefix('chexalign.').replace('.', '/')}.md"


def on_config(config):
    pages = [{room.removeprefix("chexalign."): reference_page(room)} for room in rooms()]
    config.nav.append({"Reference": pages})
    return config


def on_files(files, config):
    for room, modules in rooms().items():
        text = f"# {room}\n\n" + "\n".join(reference(module) for module in modules)
        files.append(File.generated(config, reference_page(room), content=text))
    for path in sorted(outside(config)):
        files.append(File.generated(config, source_page(path), content=source_text(path)))
    return files


def outside(config) -> set[Path]:
    """The files and folders of the repository, outside of docs, to which a page links."""
    docs = Path(config.docs_dir)
    found = set()
    for page in docs.rglob("*.md"):
        targets = {Path(os.path.normpath(page.parent / target)) for _, target, _ in LINK.findall(page.read_text())}
        found |= {t for t in targets if docs not in t.parents and t.exists()}
    return found


def source_page(path: Path) -> str:
    return f"source/{path.relative_to(ROOT)}.md"


def source_text(path: Path) -> str:
    head = f"---\nsearch: {{exclude: true}}\nhide: [navigation, toc]\n---\n# {path.relative_to(ROOT)}\n\n"
    if path.is_dir():
        return head + "\n".join(f"- `{f.name}`" for f in sorted(path.iterdir()) if f.is_file())
    fence = "`" * 6
    return f"{head}{fence}{KINDS.get(path.suffix, 'text')}\n{path.read_text()}\n{fence}\n"


def on_post_build(config):
    """The site must not load anything from the network: no font, script, style or picture."""
    loads = re.compile(r"""<(?!a\b)\w+[^>]*\b(?:src|href|srcset|data)=["']?(?:https?:)?//[^>]*>""")
    for page in Path(config.site_dir).rglob("*.html"):
        if found := loads.search(page.read_text()):
            raise PluginError(f"{page} loads from the network: {found[0]}")


def on_page_markdown(markdown, page, config, files):
    """Links to files of the repository lead to their pages of the site."""
    here = Path(config.docs_dir) / page.file.src_uri

    def moved(match: re.Match) -> str:
        target = Path(os.path.normpath(here.parent / match[2]))
        if Path(config.docs_dir) in target.parents or not target.exists():
            return match[0]
        new = os.path.relpath(source_page(target), PurePosixPath(page.file.src_uri).parent)
        return f"{match[1]}{new}{match[3] or ''})"

    return LINK.sub(moved, markdown)
