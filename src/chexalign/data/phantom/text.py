"""The phantom's reports: tables of sentences, and the few lines that choose among them.

Every positive sentence names its finding in words that a rule labeller knows, and none borrows another finding's word
("opacity" in a sentence on consolidation would be a second finding). Nothing is denied that was drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chexalign.data.phantom.law import Finding

Needs = dict[str, tuple[str, ...]]
PLACE = "{side} {zone} lung zone"
ONE_SIDE: Needs = {"side": ("left", "right")}
BOTH: Needs = {"side": ("bilateral",)}

# (kind or device, what the finding must be, sentence); the words in braces come from the finding
SENTENCES: tuple[tuple[str, Needs, str], ...] = (
    ("catheter", {}, "a {side} central venous catheter terminates in the superior vena cava."),
    ("catheter", {}, "a {side} central venous catheter is in place."),
    ("catheter", {}, "there is a {side} central venous catheter ending in the superior vena cava."),
    ("pacemaker", {}, "a {side} chest pacemaker is in place."),
    ("pacemaker", {}, "there is a {side} chest pacemaker."),
    ("pacemaker", {}, "a {side} chest pacemaker is present with one lead."),
    ("tube", {}, "an endotracheal tube terminates above the carina."),
    ("tube", {}, "the endotracheal tube is in good position above the carina."),
    ("tube", {}, "an endotracheal tube is in place."),
    ("cardiomegaly", {}, "the heart is {severely} enlarged."),
    ("cardiomegaly", {}, "there is {severity} cardiomegaly."),
    ("cardiomegaly", {}, "the cardiac silhouette is {severely} enlarged."),
    ("cardiomegaly", {}, "{severity} cardiomegaly is present."),
    ("edema", {}, "there is {severity} pulmonary edema."),
    ("edema", {}, "{severity} pulmonary edema is present."),
    ("edema", {}, "findings are consistent with {severity} pulmonary edema."),
    ("consolidation", {}, f"there is dense consolidation in the {PLACE}."),
    ("consolidation", {}, f"consolidation is seen in the {PLACE} with air bronchograms."),
    ("consolidation", {}, f"focal consolidation is present in the {PLACE}."),
    ("consolidation", {"zone": ("upper", "lower")}, "there is dense consolidation of the {side} {zone} lobe."),
    ("opacity", ONE_SIDE, f"there is a hazy opacity in the {PLACE}."),
    ("opacity", ONE_SIDE, f"a patchy opacity is seen in the {PLACE}."),
    ("opacity", ONE_SIDE, f"an ill defined opacity projects over the {PLACE}."),
    ("opacity", BOTH, "there are hazy opacities in both {zone} lung zones."),
    ("opacity", BOTH, "patchy opacities are seen in both {zone} lung zones."),
    ("opacity", BOTH, "bilateral opacities project over the {zone} lung zones."),
    ("atelectasis", ONE_SIDE, "there is linear atelectasis at the {side} lung base."),
    ("atelectasis", ONE_SIDE, "linear atelectasis is seen at the {side} base."),
    ("atelectasis", ONE_SIDE, "bandlike atelectasis is noted at the {side} lung base."),
    ("atelectasis", BOTH, "there is linear atelectasis at both lung bases."),
    ("atelectasis", BOTH, "bandlike atelectasis is noted at both lung bases."),
    ("atelectasis", BOTH, "bilateral basilar atelectasis is seen."),
    ("nodule", {}, f"there is a {{size}} nodule in the {PLACE}."),
    ("nodule", {}, f"a {{size}} pulmonary nodule projects over the {PLACE}."),
    ("nodule", {}, f"a {{size}} round nodule is seen in the {PLACE}."),
    ("effusion", ONE_SIDE, "there is a {size} {side} pleural effusion."),
    ("effusion", ONE_SIDE, "a {size} {side} pleural effusion is present."),
    ("effusion", {**ONE_SIDE, "size": ("small",)}, "a small {side} pleural effusion blunts the costophrenic angle."),
    (
        "effusion",
        {**ONE_SIDE, "size": ("moderate", "large")},
        "a {size} {side} pleural effusion obscures the diaphragm.",
    ),
    ("effusion", BOTH, "there are {size} bilateral pleural effusions."),
    ("effusion", BOTH, "{size} bilateral pleural effusions are present."),
    ("effusion", BOTH, "{size} bilateral pleural effusions are seen."),
    ("pneumothorax", {}, "there is a {size} {side} pneumothorax."),
    ("pneumothorax", {}, "a {size} {side} pneumothorax is present."),
    ("pneumothorax", {}, "a {size} {side} pneumothorax is seen with a visible pleural edge."),
)

LUNG = ("edema", "consolidation", "opacity", "atelectasis", "nodule", "effusion", "pneumothorax")

# slot: (kinds that must be absent, how often it is said, ways to say it); the first row that fits is the one
DENIALS: dict[str, tuple[tuple[tuple[str, ...], float, tuple[str, ...]], ...]] = {
    "heart": (
        (
            ("cardiomegaly",),
            0.95,
            (
                "the heart is normal in size.",
                "heart size is normal.",
                "the cardiac silhouette is within normal limits.",
            ),
        ),
    ),
    "mediastinum": (
        ((), 0.75, ("the mediastinal contours are normal.", "the mediastinal contours are unremarkable.")),
    ),
    "vessels": (
        (
            ("edema",),
            0.75,
            ("there is no pulmonary edema.", "no pulmonary edema.", "the pulmonary vasculature is normal."),
        ),
    ),
    "lungs": (
        (
            LUNG,
            0.97,
            (
                "the lungs are clear.",
                "the lungs are clear without focal consolidation.",
                "the lungs are well expanded and clear.",
            ),
        ),
        (("consolidation", "opacity"), 0.8, ("no focal consolidation.", "there is no focal consolidation.")),
    ),
    "pleura": (
        (
            ("effusion", "pneumothorax"),
            0.95,
            ("no pleural effusion or pneumothorax.", "there is no pleural effusion or pneumothorax."),
        ),
        (("effusion",), 0.85, ("no pleural effusion.", "there is no pleural effusion.")),
        (("pneumothorax",), 0.85, ("no pneumothorax.", "there is no pneumothorax.")),
    ),
    "bones": (
        (
            (),
            0.8,
            ("the bones are intact.", "the visualized bony structures are intact.", "no acute bony abnormality."),
        ),
    ),
}

# the order of a report: kinds that may be present, and slots of denials
ORDER = (
    "device", "cardiomegaly", "heart", "mediastinum", "edema", "vessels", "consolidation", "opacity", "atelectasis",
    "nodule", "lungs", "effusion", "pneumothorax", "pleura", "bones",
)  # fmt: skip

SUMMARIES: tuple[tuple[str, Needs, str], ...] = (  # the most urgent first
    ("pneumothorax", {}, "{size} {side} pneumothorax"),
    ("consolidation", {}, "{side} {zone} lung consolidation"),
    ("edema", {}, "{severity} pulmonary edema"),
    ("effusion", ONE_SIDE, "{size} {side} pleural effusion"),
    ("effusion", BOTH, "{size} bilateral pleural effusions"),
    ("nodule", {}, "{size} {side} {zone} lung nodule"),
    ("opacity", ONE_SIDE, "{side} {zone} lung opacity"),
    ("opacity", BOTH, "bilateral {zone} lung opacities"),
    ("cardiomegaly", {}, "{severity} cardiomegaly"),
    ("atelectasis", ONE_SIDE, "{side} basilar atelectasis"),
    ("atelectasis", BOTH, "bilateral basilar atelectasis"),
)
NOTHING = "No acute cardiopulmonary abnormality."

INDICATIONS = {  # kind: why such a patient was sent; "" for anyone
    "": ("Cough.", "Chest pain.", "Shortness of breath.", "Preoperative evaluation.", "Fever."),
    "cardiomegaly": ("Shortness of breath.", "Hypertension.", "Leg swelling."),
    "edema": ("Shortness of breath and leg swelling.", "Respiratory distress."),
    "effusion": ("Shortness of breath.", "Pleuritic chest pain."),
    "consolidation": ("Cough and fever.", "Fever and chills."),
    "opacity": ("Cough and fever.", "Productive cough."),
    "nodule": ("Weight loss.", "Smoker with cough."),
    "atelectasis": ("Postoperative fever.", "Chest pain."),
    "pneumothorax": ("Sudden chest pain.", "Trauma."),
    "device": ("Evaluate line placement.", "Intensive care patient."),
}
GUESSES = 0.6  # how often the indication has to do with a finding


def _fits(finding: Finding, name: str, needs: Needs) -> bool:
    return name == (finding.device or finding.kind) and all(getattr(finding, k) in v for k, v in needs.items())


def _fill(sentence: str, finding: Finding) -> str:
    words = {k: getattr(finding, k) for k in ("side", "size", "severity")}
    zone = "mid" if finding.zone == "middle" else finding.zone
    return sentence.format(**words, zone=zone, severely=f"{finding.severity}ly")


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def write_findings(rng: np.random.Generator, findings: Sequence[Finding]) -> str:
    """The findings section: one sentence per finding and what a radiologist would deny beside them."""
    present = {f.kind for f in findings}
    said = []
    for step in ORDER:
        for finding in (f for f in findings if f.kind == step):
            options = [text for name, needs, text in SENTENCES if _fits(finding, name, needs)]
            said.append(_fill(_pick(rng, options), finding))
        for absent, share, ways in DENIALS.get(step, ()):
            if present.isdisjoint(absent):
                said += [_pick(rng, ways)] if rng.random() < share else []
                break
    return " ".join(map(_capital, said))


def write_impression(findings: Sequence[Finding]) -> str:
    """The four most urgent findings in one or two sentences; devices are not repeated."""
    main = [_fill(text, f) for name, needs, text in SUMMARIES for f in findings if _fits(f, name, needs)][:4]
    sentences = [_capital(" and ".join(main[i : i + 2])) + "." for i in range(0, len(main), 2)]
    return " ".join(sentences) or NOTHING


def write_indication(rng: np.random.Generator, findings: Sequence[Finding]) -> str:
    """Why the film was taken; with probability GUESSES it has to do with a finding that is there."""
    kinds = [f.kind for f in findings]
    kind = _pick(rng, kinds) if kinds and rng.random() < GUESSES else ""
    return _pick(rng, INDICATIONS[kind])
