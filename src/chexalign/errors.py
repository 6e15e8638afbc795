"""The two ways a command fails, and nothing else."""


class WorkError(Exception):
    """The work failed (exit code 1): bad data, a full disk, a leak between splits."""


class RecipeError(Exception):
    """The call or the recipe is wrong (exit code 2): unknown key, unknown judge, a folder of another recipe."""


class Abstain(Exception):
    """Raised inside a judge when this text or pair cannot be judged; the message becomes the Judgement's `error`."""
