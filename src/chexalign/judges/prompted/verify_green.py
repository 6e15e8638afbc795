"""Is GREEN here GREEN there? One command for someone with the weights; nothing is downloaded:

python -m chexalign.judges.prompted.verify_green --model DIR/GREEN-radllama2-7b [--pairs pairs.jsonl]
    [--ref-python ~/green/bin/python]

--ref-python is an interpreter with green_score installed; giving it is the user's consent to run that package there. Without
it, what needs no reference is checked: the prompt as it is put, the tokenizer, the weights' dtype. With it: prompts, token
ids, answers and scores of every pair, by the package's own functions. Pairs are JSON lines {reference, report}. Exits 0 when
all agree.
"""

# The other interpreter runs this file by its path: only the standard library is imported at the top.
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAIRS = [  # ours; one right, one denied, one left out, one long
    ("Small left pleural effusion. No pneumothorax.", "Small left pleural effusion. No pneumothorax."),
    ("No acute cardiopulmonary process.", "Large right pneumothorax."),
    ("Moderate cardiomegaly. Mild pulmonary edema.", "Moderate cardiomegaly."),
    ("The lungs are clear. " * 60, "Right lower lobe consolidation. " + "The heart size is normal. " * 60),
]
Row = tuple[str, bool, str]  # what was checked, whether it holds, the numbers


def published(model: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """In the other interpreter: the package's prompts, token ids, answers and scores, by its own class."""
    import inspect
    import tempfile

    from green_score import GREEN

    known = inspect.signature(GREEN.__init__).parameters
    options: dict[str, Any] = {"compute_summary_stats": False} if "compute_summary_stats" in known else {}
    with tempfile.TemporaryDirectory() as folder:
        scorer = GREEN(model, output_dir=folder, **options)
        scorer([reference for reference, _ in pairs], [report for _, report in pairs])
    rows = []
    for prompt, answer, score in zip(scorer.prompts, scorer.completions, scorer.green_scores, strict=True):
        batch = scorer.tokenize_batch_as_chat({"conv": [[{"from": "human", "value": prompt}]]})
        ids = batch["input_ids"][0].tolist()
        rows.append({"prompt": prompt, "ids": ids, "answer": answer, "score": score})
    return {"dtype": str(scorer.model.dtype), "rows": rows}


def ours(model: str, pairs: Sequence[tuple[str, str]], answers: bool) -> dict[str, Any]:
    """In this process: the same, by the judge `green` with the official parser and no cleaning."""
    from chexalign.judges.prompted.green import Green, green, make_prompt, read_official
    from chexalign.llm.local import Local
    from chexalign.llm.reply import Reply

    judge = Green(model=model, parser="official", clean=False, turns="green", max_tokens="auto")
    local = judge._backend
    assert isinstance(local, Local)
    prompts = [judge._prompt(report, reference) for reference, report in pairs]
    rows: list[dict[str, Any]] = [
        {"prompt": make_prompt(report, reference), "ids": local._tokens(prompt)}
        for (reference, report), prompt in zip(pairs, prompts, strict=True)
    ]
    for row, reply in zip(rows, judge.ask(prompts) if answers else [], strict=False):
        row["answer"] = reply.text if isinstance(reply, Reply) else str(reply)
        row["score"] = green(*read_official(reply.text)) if isinstance(reply, Reply) else None
    return {"dtype": str(local._parts[0].dtype), "rows": rows}


def compare(here: dict[str, Any], there: dict[str, Any]) -> list[Row]:
    """What agrees: prompts word for word, token ids, answers, scores, dtype."""
    found: list[Row] = [("dtype", here["dtype"] == there["dtype"], f"{here['dtype']} here, {there['dtype']} there")]
    for field in ("prompt", "ids", "answer", "score"):
        same = [a.get(field) == b.get(field) for a, b in zip(here["rows"], there["rows"], strict=True)]
        first = "" if all(same) else f"; first difference in pair {same.index(False) + 1}"
        found.append((field, all(same), f"{sum(same)} of {len(same)} pairs{first}"))
    return found


def alone(here: dict[str, Any], model: str) -> list[Row]:
    """What can be checked without the package."""
    settings = json.loads((Path(model) / "tokenizer_config.json").read_text(encoding="utf-8"))
    adds = settings.get("add_eos_token")
    longest = max(len(row["ids"]) for row in here["rows"])
    return [
        ("weights in half precision", here["dtype"] == "torch.float16", here["dtype"]),
        (
            "add_eos_token is known",
            isinstance(adds, bool),
            f"tokenizer_config.json says {adds}; the package sets it to true",
        ),
        ("the prompts leave room", longest < 2048, f"longest prompt {longest} of 2,048 tokens"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line per check; the exit status is 0 when all hold and 1 otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--ref-python")
    parser.add_argument("--published", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args(arguments)
    lines = a.pairs.read_text(encoding="utf-8").splitlines() if a.pairs else []
    pairs = [(row["reference"], row["report"]) for row in map(json.loads, lines)] or PAIRS
    if a.published:
        print(json.dumps(published(a.model, pairs)))
        return 0
    here = ours(a.model, pairs, answers=bool(a.ref_python))
    rows = alone(here, a.model)
    if a.ref_python:
        more = ["--pairs", str(a.pairs)] if a.pairs else []
        command = [a.ref_python, __file__, "--model", a.model, "--published", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"the reference failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return 1
        rows += compare(here, json.loads(done.stdout.strip().splitlines()[-1]))
    for name, holds, numbers in rows:
        print(f"{'ok  ' if holds else 'DIFFERS'} {name}: {numbers}")
    return 0 if all(holds for _, holds, _ in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
