"""METEOR: by hand, against NLTK, and the published values of the forms that need WordNet or Java."""

import random

import pytest
from nltk.translate.meteor_score import single_meteor_score

from chexalign.judges import load
from chexalign.judges.lexical.meteor import _synonyms, meteor_score, tokens, with_stems
from chexalign.judges.lexical.meteor_jar import Program
from chexalign.judges.registry import JUDGES

WORDS = "no small smaller effusion effusions enlarged enlarging heart is normal . , left lungs lung clear clearing the".split()
GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party"
REFERENCE = "It is a guide to action that ensures that the military will forever heed Party commands"


class NoWordNet:
    """What NLTK asks for synonyms; it knows none."""

    def synsets(self, word):
        return []


def needs(name):
    reason = JUDGES[name].unavailable()
    return pytest.mark.skipif(reason is not None, reason=f"{name}: {reason}")


def score(name, report, reference):
    return load(name).score([report], [reference])[0].score


def test_by_hand():
    """ "no effusion ." in "no large effusion .": m = 3 of 3 and of 4, two chunks (no | effusion .)."""
    mean = 1 * 0.75 / (0.9 * 1 + 0.1 * 0.75)
    found = load("meteor_nosyn").score(["No effusion."], ["No large effusion."])[0]
    assert found.score == pytest.approx((1 - 0.5 * (2 / 3) ** 3) * mean, abs=1e-12)
    assert found.details == {"matches": 3, "chunks": 2, "precision": 1.0, "recall": 0.75}


def test_a_text_against_itself_misses_one_by_its_only_chunk():
    assert score("meteor_nosyn", "Lungs clear.", "Lungs clear.") == pytest.approx(1 - 0.5 / 3**3)


def test_stems_match_after_words_do():
    assert score("meteor_nosyn", "effusions", "effusion") == pytest.approx(0.5)
    assert score("meteor_nosyn", "enlarged effusions", "enlarging effusion") == pytest.approx(1 - 0.5 / 2**3)


def test_equals_nltk_without_synonyms():
    rng, compared = random.Random(0), 0
    for _ in range(400):
        a, b = ([rng.choice(WORDS) for _ in range(rng.randrange(1, 25))] for _ in range(2))
        expected = single_meteor_score(b, a, wordnet=NoWordNet())
        assert meteor_score(with_stems(a), with_stems(b))[0] == pytest.approx(expected, abs=1e-12), (a, b)
        compared += expected > 0
    assert compared > 300


def test_equals_nltk_with_synonyms():
    """The same matches as NLTK with a thesaurus of our own, so it needs no WordNet."""
    thesaurus = {"small": ["smaller", "left"], "heart": ["lung"], "clear": ["normal", "clearing"], "is": ["the", "no"]}

    class Lemma:
        def __init__(self, name):
            self.name = lambda: name

    class Synset:
        def __init__(self, names):
            self.lemmas = lambda: [Lemma(n) for n in names]

    class Thesaurus:
        def synsets(self, word):
            return [Synset(thesaurus[word])] if word in thesaurus else []

    rng = random.Random(1)
    for _ in range(400):
        a, b = ([rng.choice(WORDS) for _ in range(rng.randrange(1, 15))] for _ in range(2))
        ours = meteor_score(with_stems(a), with_stems(b), lambda w: frozenset(thesaurus.get(w, ())))[0]
        assert ours == pytest.approx(single_meteor_score(b, a, wordnet=Thesaurus()), abs=1e-12), (a, b)


def test_tokens():
    assert tokens("1.5 cm, T4-T5; X-ray. Don't/do ½") == [
        "1.5",
        "cm",
        ",",
        "t4-t5",
        ";",
        "x-ray",
        ".",
        "don't",
        "/",
        "do",
        "½",
    ]


def test_a_form_that_is_not_here_abstains_with_the_remedy(monkeypatch):
    monkeypatch.setattr("chexalign.judges.lexical.meteor.missing_wordnet", lambda: "WordNet is not installed")
    monkeypatch.setattr("chexalign.judges.lexical.meteor_jar.find_jar", lambda jar: None)
    monkeypatch.setattr("shutil.which", lambda program: "/usr/bin/java")
    assert load("meteor_nltk").score(["a"], ["a"])[0].error == "WordNet is not installed"
    assert "pip install 'chexalign[meteor]'" in load("meteor_1.5").score(["a"], ["a"])[0].error


@needs("meteor_nltk")
def test_nltk_golden():
    """NLTK's documented value: here the tokens are words alone, as NLTK's users split them."""
    split = with_stems(GUIDE.lower().split()), with_stems(REFERENCE.lower().split())
    assert round(meteor_score(*split, _synonyms)[0], 4) == 0.6944
    assert score("meteor_nltk", GUIDE, REFERENCE) == pytest.approx(meteor_score(*split, _synonyms)[0], abs=1e-12)


GOLDEN_15 = [
    (GUIDE, REFERENCE, 0.4473609),
    ("the heart is big .", "the heart is large .", 0.9333333),
    ("pleural effusion .", "no pleural effusion .", 0.4622274),
    ("severe pulmonary edema .", "mild pulmonary edema .", 0.3628485),
    ("the cardiac silhouette is mildly enlarged .", "mild cardiomegaly .", 0.1365854),
    ("Lungs are clear.", "Lungs are clear.", 1.0),
]


@needs("meteor_1.5")
def test_meteor_15_golden():
    """Values of the jar in pycocoevalcap 1.2, asked together and one by one, also after the program has died."""
    judge = load("meteor_1.5")
    reports, references, expected = zip(*GOLDEN_15, strict=True)
    assert [a.score for a in judge.score(reports, references)] == pytest.approx(expected, abs=5e-8)
    assert judge.score(["a ||| b"], ["a b"])[0].score == 1
    long = judge.score(["heart " * 5000], ["heart"])[0]
    assert long.score is None and "longer than 1000 words" in long.error


@pytest.mark.parametrize("answer", ["", "exit 0", "echo Error: what\nread -r x\necho nonsense\nread -r y"])
def test_a_program_that_dies_or_talks_nonsense_is_an_abstention(tmp_path, monkeypatch, answer):
    fake = tmp_path / "java"
    fake.write_text(f"#!/bin/sh\nread -r a\n{answer}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("chexalign.judges.lexical.meteor_jar.SECONDS", 5)
    jar = tmp_path / "meteor-1.5.jar"
    jar.touch()
    for _ in range(2):
        found = load("meteor_1.5", jar=str(jar)).score(["a"], ["a"])[0]
        assert found.score is None and "gave no score" in found.error


def test_a_program_that_hangs_is_ended(tmp_path, monkeypatch):
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\nexec sleep 30\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("chexalign.judges.lexical.meteor_jar.SECONDS", 0.2)
    from chexalign.errors import Abstain

    with pytest.raises(Abstain, match="within 0 s"):
        Program(tmp_path / "x.jar").score("a", "a")
