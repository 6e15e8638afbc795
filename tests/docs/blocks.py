"""The code blocks of README and docs: where they stand, what language, and whether the page says that they are not run."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?P<before><!-- not run: [^\n]* -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", flags=re.M | re.S)
SHELL = ("", "bash", "text")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    text: str
    is_run: bool  # False: the line above it says `<!-- not run: why -->`

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*kinds: str) -> list[Block]:
    """Every fenced block of these languages, in the order of the pages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            line = text[: match.start("kind")].count("\n") + 1
            found.append(Block(page, line, match["kind"], match["text"], match["before"] is None))
    return [b for b in found if b.kind in kinds]


def commands(program: str) -> list[tuple[str, str]]:
    """(where, command) of each shell line and each stretch in backticks that starts with this program."""
    found = []
    for block in blocks("", "bash"):
        text = block.text.replace("\\\n", " ")
        found += [(str(block), line) for line in text.splitlines() if line.startswith(f"{program} ")]
    for page in PAGES:
        prose = FENCE.sub("", page.read_text())
        inline = re.findall(rf"(?<!`)`({program} [^`]+)`", prose)
        found += [(str(page.relative_to(ROOT)), " ".join(command.split())) for command in inline]
    return found
