"""What a reader must know before believing a headline."""

from __future__ import annotations

from chexalign.results import Results


def warnings_for(results: Results, cut_share: float) -> list[str]:
    """What a reader must know before believing the headline, in plain words.

    `cut_share` is the share of the aligned policy's reports that were cut at sample.max_new_tokens.
    """
    found = []
    overall = results.overall
    greedy = results.subsets.get("greedy", overall)
    template, shuffled = results.controls.template, results.controls.shuffled_images
    shown = "findings section" if results.task == "impression" else "image"
    for name in results.headline:
        best, fixed = greedy.aligned[name]["mean"], template.scores[name]["mean"]
        if best is not None and fixed is not None and best <= fixed:
            found.append(
                f"These reports are poor: one fixed report that ignores every {shown} scores {fixed:.3f} on {name}, the "
                f"aligned policy {best:.3f} at its best decoding. It has not learnt to read these {shown}s."
            )
        if shuffled:
            real, other_images = overall.aligned[name], shuffled.scores[name]
            gap = shuffled.difference[name]
            if gap["low"] is not None and gap["low"] <= 0:
                found.append(
                    f"With the images of other studies the aligned policy scores {other_images['mean']:.3f} on {name}, with "
                    f"the right ones {real['mean']:.3f}: it is not shown that this score comes from the images."
                )
            prior, gain = results.subsets["shuffled"].difference[name], overall.difference[name]
            if prior["low"] is not None and prior["low"] > 0:
                found.append(
                    f"With the images of other studies the aligned policy still gains {prior['mean']:.3f} on {name} over the "
                    f"baseline, with the right ones {gain['mean']:.3f}: so much of the gain is language prior, not reading."
                )
    length = overall.length or {}
    ratio = (length["aligned"] or 0.0) / (length["reference"] or 1.0)
    if ratio and not 0.8 <= ratio <= 1.2:
        found.append(
            f"Aligned reports have {ratio:.2f} times the words of the references: compare length-controlled scores."
        )
    if (n := overall.n_studies or 0) < 100:
        found.append(f"Only {n} test studies: the intervals are wide, and a small change cannot be seen.")
    if cut_share > 0.01:
        found.append(f"{cut_share:.0%} of the aligned reports were cut at sample.max_new_tokens before they ended.")
    return found
