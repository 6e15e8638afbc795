"""The results as Markdown tables, and where in the docs they go."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

START, END = "<!-- engine tables: written by make bench -->", "<!-- end of engine tables -->"


def machine(threads: int) -> dict[str, Any]:
    cpu = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), "?"
    )
    packages = {p: version(p) for p in ("torch", "transformers", "trl")}
    return {"cpu": cpu, "threads": threads, "python": platform.python_version(), **packages}


def _seconds(cell: dict[str, float]) -> str:
    return f"{cell['median']:.2f} s [{cell['min']:.2f}, {cell['max']:.2f}]"


def tables(r: dict[str, Any]) -> str:
    m = r["machine"]
    lines = [
        f"Measured with `{r['command']}` on {m['threads']} threads of {m['cpu']}, torch {m['torch']}, transformers "
        f"{m['transformers']}, TRL {m['trl']}: fp32, batches of 2 pairs, medians [smallest, largest] of alternating steps.",
        "",
        "| case | TRL step | ours, stored | TRL / ours | ours, inline | TRL / inline | first loss | grad norm | five losses |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, s in r["steps"].items():
        t = s["seconds"]
        lines.append(
            f"| {name}: {s['what']} | {_seconds(t['trl'])} | {_seconds(t['stored'])} | **{s['trl_over_stored']:.2f}** | "
            f"{_seconds(t['inline'])} | **{s['trl_over_inline']:.2f}** | {s['first_loss']['relative']:.0e} | "
            f"{s['first_grad_norm']['relative']:.0e} | {s['largest_relative_difference']:.0e} |"
        )
    n = next(iter(r["steps"].values()))["seconds"]["trl"]["n"]
    lines += ["", f"n = {n} steps a cell. The last three columns are relative differences from TRL's.", ""]
    if r["memory"]:
        lines += ["| peak memory | TRL | ours | ours / TRL | without imports |", "|---|---|---|---|---|"]
        for name, c in r["memory"].items():
            trl, ours = c["trl"], c["ours"]
            lines.append(
                f"| {name} | {trl['peak_mib']:.0f} MiB | {ours['peak_mib']:.0f} MiB | **{c['ratio_peak']:.2f}** | "
                f"{c['ratio_over_start']:.2f} |"
            )
        lines += ["", "| our step | encode | forward | backward | clip and update | whole | floor | whole / floor |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for name, p in r["parts"].items():
            cells = [f"{p[k]:.3f} s" for k in ("encode", "forward", "backward", "clip_and_update", "whole", "floor")]
            lines.append(f"| {name} | {' | '.join(cells)} | {p['whole_over_floor']:.2f} |")
        lines += [
            "",
            "The floor is (prefix + completion tokens) × 3 × the decoder's measured forward time per token.",
            "",
        ]
    a = r["algorithms"]
    names = [k for k in a if isinstance(a[k], dict)]
    lines += [f"| step time | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    ratios = " | ".join(f"{a[k]['over_dpo']:.2f}" for k in names)
    lines += [f"| over DPO's | {ratios} |", ""]
    lines.append(
        f"KTO's mismatched completions need the reference once per run: {a['kto_reference_per_step']:.2f} s a step, so a "
        f"first epoch takes {a['kto_first_epoch_over_dpo']:.2f} of DPO's."
    )
    s, g = r["scoring"], r["sampling"]
    lines += [
        "",
        f"Scoring {s['group']} completions of one study: {_seconds(s['seconds']['shared'])} against "
        f"{_seconds(s['seconds']['plain'])} in {s['group']} plain passes, **{s['ratio']:.2f}×**; they differ by at most "
        f"{s['largest_difference']:.0e} nats a token.",
        "",
        f"Sampling {g['n']} reports of {g['tokens']} tokens for {g['studies']} studies: {_seconds(g['seconds']['ours'])} "
        f"against {_seconds(g['seconds']['generate'])} with one `generate` call per report, **{g['ratio']:.2f}×**.",
    ]
    return "\n".join(lines)


def write_page(page: Path, results: dict[str, Any]) -> None:
    """Put the tables between the marks."""
    text = page.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n\n{tables(results)}\n\n{END}{after}")
