"""Commands for what a run has made: write a report, export the policy, let a person compare its samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chexalign.progress import say

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]


def register(app: typer.Typer) -> None:
    """Adds `write`, `export` and `review` to the program; called once, by the front door."""
    app.command()(write)
    app.command()(export)
    app.command()(review)


def write(
    run: RunFolder,
    findings: Annotated[str, typer.Option(help="The findings section, for a run that writes impressions.")] = "",
    image: Annotated[list[Path] | None, typer.Option(help="An image; repeat it for a second one.")] = None,
    indication: Annotated[str, typer.Option(help="Why the exam was done.")] = "",
) -> None:
    """Print what a run's aligned policy writes about one study: its findings from --image, or its impression from --findings.

    Example: chexalign write runs/rgro_openi --findings "Small left pleural effusion. Heart size is normal."
    """
    _quiet()
    from chexalign.run.finished import write as written

    print(written(run, findings, indication, image or []))


def export(
    run: RunFolder,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to (default RUN/export).")] = None,
) -> None:
    """Write a run's aligned policy as a checkpoint that plain transformers loads; adapters are merged into their base.

    Example: chexalign export runs/rgro_openi --to models/impressions
    """
    _quiet()
    from chexalign.run.finished import export as exported

    folder = exported(run, to)
    say(f"checkpoint: {folder.resolve()} (its README.md says how to load it)")


def review(
    run: RunFolder,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where answers go (default RUN/feedback.jsonl).")
    ] = None,
    reviewer: Annotated[str, typer.Option(help="Who answers, where several do.")] = "",
    port: Annotated[int, typer.Option(help="Port of this machine; any that is free when 0.", min=0, max=65535)] = 0,
) -> None:
    """A page where a person compares two sampled reports of each study, blinded, and mends them → feedback.jsonl.

    Example: chexalign review runs/demo
    """
    from chexalign.review.server import address, open_server
    from chexalign.review.session import open_session
    from chexalign.run.folder import finished_run

    path = to or run / "feedback.jsonl"
    session = open_session(finished_run(run), path, reviewer)
    with open_server(session, port) as server:
        say(f"open {address(session, server)} in a browser of this machine; stop with Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    say(f"{len(session.rows)} answers in {path}; to learn from them:")
    say(f"  chexalign run RECIPE pairs.feedback={path} --restart pairs")


def _quiet() -> None:
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
