"""Doctests in docstrings are shown as code: Markdown would read their >>> as quotations."""

import re

import griffe

BLOCK = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", flags=re.M)


class Doctests(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            obj.docstring.value = BLOCK.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
