"""What a reader must know before believing a headline."""

from __future__ import annotations

from typing import Any


def warnings_for(results: dict[str, Any], cut_share: float) -> list[str]:
    """What a reader must know before believing the headline, in plain words."""
    found = []
    n, greedy = results["n_studies"], results["subsets"].get("greedy", results)
    template, shuffled = results["controls"]["template"], results["controls"].get("shuffled_images")
    shown = "findings section" if results.get("task") == "impression" else "image"
    for name in results["headline"]:
        best, fixed = greedy["aligned"][name]["mean"], template["scores"][name]["mean"]
        if best is not None and fixed is not None and best <= fixed:
            found.append(
                f"These reports are poor: one fixed report that ignores every {shown} scores {fixed:.3f} on {name}, the "
                f"aligned policy {best:.3f} at its best decoding. It has not learnt to read these {shown}s."
            )
        if shuffled:
            real, blind, gap = results["aligned"][name], shuffled["scores"][name], shuffled["difference"][name]
            if gap["low"] is not None and gap["low"] <= 0:
                found.append(
                    f"With the images of other studies the aligned policy scores {blind['mean']:.3f} on {name}, with the "
                    f"right ones {real['mean']:.3f}: it is not shown that this score comes from the images."
                )
            prior, gain = results["subsets"]["shuffled"]["difference"][name], results["difference"][name]
            if prior["low"] is not None and prior["low"] > 0:
                found.append(
                    f"With the images of other studies the aligned policy still gains {prior['mean']:.3f} on {name} over the "
                    f"baseline, with the right ones {gain['mean']:.3f}: so much of the gain is language prior, not reading."
                )
    length = results["length"]
    if length["aligned"] and not 0.8 <= length["aligned"] / length["reference"] <= 1.2:
        ratio = length["aligned"] / length["reference"]
        found.append(
            f"Aligned reports have {ratio:.2f} times the words of the references: compare length-controlled scores."
        )
    if n < 100:
        found.append(f"Only {n} test studies: the intervals are wide, and a small change cannot be seen.")
    if cut_share > 0.01:
        found.append(f"{cut_share:.0%} of the aligned reports were cut at sample.max_new_tokens before they ended.")
    return found
