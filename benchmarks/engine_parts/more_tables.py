"""Tables of benchmarks/online.py and benchmarks/lora.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks called `name`."""
    start, end = f"<!-- {name} tables: written by make bench -->", f"<!-- end of {name} tables -->"
    before, _, rest = page.read_text().partition(start)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")


def _cell(cell: dict[str, float]) -> str:
    return f"{cell['median']:.2f} s [{cell['min']:.2f}, {cell['max']:.2f}]"


def _about(r: dict[str, Any]) -> str:
    m = r["machine"]
    return (
        f"Measured with `{r['command']}` on {m['threads']} threads of {m['cpu']}, torch {m['torch']}, transformers "
        f"{m['transformers']}, TRL {m['trl']}, fp32; medians [smallest, largest] of alternating steps"
    )


def online_tables(r: dict[str, Any]) -> str:
    lines = [
        f"{_about(r)}: one prompt a step, G = {r['group']}, {r['tokens']} tokens a completion.",
        "",
        "| case | n | TRL | ours, stored | TRL / ours | ours, inline | TRL / inline | loss | grad norm |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, s in r["steps"].items():
        c, same = s["cells"], r["equal"].get(name, {"loss": float("nan"), "grad_norm": float("nan")})
        steps = {n: _cell(c[n]["step"]) for n in c}
        lines.append(
            f"| {name}: {s['what']} | {c['trl']['step']['n']} | {steps['trl']} | {steps['stored']} | "
            f"**{s['trl_over_stored']:.2f}** | {steps['inline']} | **{s['trl_over_inline']:.2f}** | {same['loss']:.0e} | "
            f"{same['grad_norm']:.0e} |"
        )
    lines += [
        "",
        "The last two columns are differences from TRL's (the loss absolute, the norm relative) on TRL's own samples,",
        "before any update, with old log-probs moved so that some ratios are clipped.",
        "",
        "| medians | | rollout | reference and reward | update |",
        "|---|---|---|---|---|",
    ]
    for name, s in r["steps"].items():
        for side in ("trl", "stored", "inline"):
            parts = [f"{s['cells'][side][p]['median']:.2f} s" for p in ("rollout", "reference_and_reward", "update")]
            lines.append(f"| {name} | {side} | {' | '.join(parts)} |")
    if memory := r.get("memory"):
        lines += ["", "| peak memory | whole process | without imports |", "|---|---|---|"]
        names = {"ours": "ours", "trl": "TRL", "trl_checkpointing": "TRL, gradient checkpointing (its default)"}
        lines += [
            f"| {names[n]} | {memory[n]['peak_mib']:.0f} MiB | {memory[n]['over_start_mib']:.0f} MiB |" for n in names
        ]
    return "\n".join(lines)


def lora_tables(r: dict[str, Any]) -> str:
    lines = [
        f"{_about(r)}: batches of {r['batch']} pairs, LoRA r {r['rank']} on all linear layers, prompts of "
        f"{r['tokens']['prompt']:.0f} tokens and completions of {r['tokens']['completion']:.0f} (means).",
        "",
        "| | n | step | pairs per second | TRL's default / this |",
        "|---|---|---|---|---|",
    ]
    names = {
        "trl": "TRL, reference in the step (its default)",
        "trl_stored": "TRL, `precompute_ref_log_probs`",
        "inline": "ours, reference in the step",
        "stored": "ours, stored references (what a run does)",
    }
    default = r["cells"]["trl"]["median"]
    for name, label in names.items():
        if cell := r["cells"].get(name):
            speed, ratio = r["batch"] / cell["median"], default / cell["median"]
            lines.append(f"| {label} | {cell['n']} | {_cell(cell)} | {speed:.2f} | **{ratio:.2f}** |")
    losses, gaps = r["losses"], r["largest_loss_difference"]
    lines += [
        "",
        f"First loss: TRL {losses['trl'][0]:.6f}, ours {losses['stored'][0]:.6f} (log 2 is 0.693147). The losses of the first "
        f"{r['compared']} steps differ by at most {max(gaps.values()):.0e}, the gradient norm of the first by "
        f"{max(r['first_grad_norm'].values()):.0e} of itself.",
    ]
    if memory := r.get("memory"):
        ours, trl = memory["ours"], memory["trl"]
        lines += [
            "",
            f"Peak memory: TRL {trl['peak_mib']:.0f} MiB, ours {ours['peak_mib']:.0f} MiB "
            f"({ours['peak_mib'] / trl['peak_mib']:.2f}).",
        ]
    return "\n".join(lines)
