"""The two ways a command fails, and nothing else."""


class WorkError(Exception):
    """The work failed (exit code 1): bad data, a full disk, a leak between splits."""


class RecipeError(Exception):
    """The call or the recipe is wrong (exit code 2): unknown key, unknown judge, a folder of another recipe."""


class Abstain(Exception):
    """Raised inside a judge when this text or pair cannot be judged; the message becomes the Judgement's `error`."""


def printable(text: str, longest: int = 300) -> str:
    """`text` as a terminal or a log may show it: control, invisible and broken characters escaped, the middle cut out."""
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]} … {text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
