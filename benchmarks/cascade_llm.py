"""A cascade over GREEN on canned answers, and over a small real language model: the same best and worst, and the calls.

    python benchmarks/cascade_llm.py canned [--studies 400]
    python benchmarks/cascade_llm.py smollm2 [--studies 30]

canned: GREEN's prompt and parser over answers in GREEN's form, whose counts come from the findings that the rules read in both
reports. smollm2: SmolLM2-135M's mean probability per token of the report after the reference, a judge that needs one
pass; its written answers cannot be parsed. Groups are those of cascade.py.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cascade import ends, groups
from chexalign.judges import load
from chexalign.judges.cascade import Cascade, wilson
from chexalign.judges.contract import Judge, TextJudge, reward
from chexalign.judges.findings.statements import read_text
from chexalign.judges.request import RewardRequest
from chexalign.policies.checkpoints.smollm2 import checkpoint_of

N = 4


def names(text: str) -> set[str]:
    return {m.name for m in read_text(text).mentions if m.status != 0}


def canned(request: RewardRequest, folder: Path) -> Judge:
    """GREEN over one canned answer a pair; a normal pair matches once."""
    rows = []
    for report, reference in dict.fromkeys(zip(request.reports, request.references, strict=True)):
        a, b = names(report), names(reference)
        errors = f"(a) False report: {len(a - b)}. x.\n(b) Missing: {len(b - a)}. x."
        matched = len(a & b) or int(not a and not b)
        answer = f"[Clinically Significant Errors]:\n{errors}\n\n[Matched Findings]:\n{matched}. x."
        rows.append({"contains": [report, reference], "answer": answer})
    path = folder / "answers.json"
    path.write_text(json.dumps(rows))
    return load("green", answers=str(path))


def smollm2() -> Judge:
    folder = checkpoint_of("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)

    @torch.inference_mode()
    def likelihood(report: str, reference: str) -> tuple[float, dict[str, object]]:
        before = tokenizer(f"The same chest X-ray in other words.\nReport: {reference}\nReport:").input_ids
        said = tokenizer(f" {report}").input_ids
        logp = model(torch.tensor([before + said])).logits[0, len(before) - 1 : -1].log_softmax(-1)
        return math.exp(logp[range(len(said)), said].mean().item()), {}

    return TextJudge("smollm2_likelihood", "1", lambda text: text, likelihood)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("costly", choices=("canned", "smollm2"))
    parser.add_argument("--studies", type=int, default=0)
    options = parser.parse_args()
    request = groups(options.studies or {"canned": 400, "smollm2": 30}[options.costly], N)
    with tempfile.TemporaryDirectory() as folder:
        costly = canned(request, Path(folder)) if options.costly == "canned" else smollm2()
        full = [a.score for a in reward(costly, request)]
    spread = f"{len(set(full))} different scores of {len(full)}, {sum(s is None for s in full)} abstentions"
    print(
        f"{costly.name}: {spread}\n| cheap | margin | asked | same best and worst | 90 % interval |\n|---|---|---|---|---|"
    )
    pairs = zip(request.reports, request.references, strict=True)
    known = {pair: score for pair, score in zip(pairs, full, strict=True) if score is not None}
    for cheap in ("finding_f1_weighted", "finding_f1", "rouge_l"):
        for margin in (0.0, 0.1):
            remembered = TextJudge("costly", "1", lambda t: t, lambda a, b: (known[a, b], {}))
            judge = Cascade(load(cheap), remembered, margin)
            found = [a.score for a in reward(judge, request)]
            rows = [range(i, i + N) for i in range(0, len(full), N)]
            same = sum(ends([found[i] for i in row]) == ends([full[i] for i in row]) for row in rows)
            low, high = wilson(same, len(rows))
            asked = judge.tally.asked / judge.tally.reports
            print(f"| {cheap} | {margin:g} | {asked:.0%} | {same / len(rows):.0%} | {low:.0%} to {high:.0%} |")


if __name__ == "__main__":
    main()
