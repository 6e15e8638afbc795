"""The cache on disk: right answers, two writers at once, damaged files, and nothing of the text in it."""

import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from chexalign.errors import Abstain, WorkError
from chexalign.judges import cache
from chexalign.judges.contract import Judgement

TEXT = "Small left pleural effusion in Mrs Example."


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return cache.open_store(tmp_path, "judge[a/b:L6]", said.append)


def test_a_key_names_version_texts_and_their_order():
    keys = {cache.key("1", "ab", "c"), cache.key("1", "a", "bc"), cache.key("2", "ab", "c"), cache.key("1", "c", "ab")}
    assert len(keys) == 4 and cache.key("1", "ab", "c") in keys and cache.key("1", "\ud800") not in keys


def test_what_is_put_is_got_also_by_the_next_process(store, said):
    store.put_many({f"k{i}": bytes([i % 256]) * i for i in range(1200)})
    found = cache.open_store(store.path.parent, "judge[a/b:L6]").get_many([*(f"k{i}" for i in range(1200)), "absent"])
    assert len(found) == 1200 and found["k7"] == b"\7" * 7 and not said
    assert store.path.name == "judge_a_b_L6_.sqlite" and cache.open_store(None, "x") is None


WRITER = """
import sys
from chexalign.judges import cache
store = cache.open_store(sys.argv[1], "j")
print("ready", flush=True)
sys.stdin.readline()
for start in range(0, 200, 10):
    store.put_many({f"k{i}": f"value {i}".encode() * 50 for i in range(start, start + 10)})
    store.put_many({f"{sys.argv[2]}{i}": b"own" for i in range(start, start + 10)})
    assert len(store.get_many([f"k{i}" for i in range(start + 10)])) == start + 10
"""


def test_two_processes_write_at_once(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for who in "ab"
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    found = cache.open_store(tmp_path, "j").get_many([f"{k}{i}" for k in "kab" for i in range(200)])
    assert len(found) == 600 and found["k199"] == b"value 199" * 50


@pytest.mark.parametrize("damage", ["garbage", "torn"])
def test_a_damaged_file_is_put_aside_and_said(store, said, damage):
    store.put_many({f"k{i}": b"x" * 500 for i in range(200)})
    raw = store.path.read_bytes()
    store.path.write_bytes(b"not a database " * 100 if damage == "garbage" else raw[: len(raw) // 2])
    assert store.get_many([f"k{i}" for i in range(200)]) == {}
    assert len(said) == 1 and "damaged" in said[0] and "made again" in said[0]
    store.put_many({"k": b"y"})
    assert store.get_many(["k"]) == {"k": b"y"}
    assert [p.name for p in store.path.parent.glob("*.damaged-*")]


def test_a_damaged_entry_is_dropped_and_said(store, said):
    store.put_many({"a": b"right", "b": b"wrong"})
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE entries SET value = ? WHERE key = 'b'", (b"wrung",))
    connection.close()
    assert store.get_many(["a", "b"]) == {"a": b"right"} and "1 damaged entries dropped" in said[0]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkError, match="choose another folder"):
        cache.open_store(tmp_path / "file", "j")


def test_texts_are_encoded_once_and_never_stored(store):
    asked = []

    def encode_many(texts):
        asked.extend(texts)
        return [Abstain("no") if t == "bad" else np.full((len(t), 2), 0.1, np.float32) for t in texts]

    encode = cache.remembered(store, "1", encode_many, cache.pack_array, cache.unpack_array)
    first, bad = encode([TEXT, "bad"])
    again, bad = encode([TEXT, "bad"])
    assert asked == [TEXT, "bad", "bad"] and isinstance(bad, Abstain)
    assert again.dtype == np.float32 and np.array_equal(first, again) and again.shape == (len(TEXT), 2)
    cache.remembered(store, "2", encode_many, cache.pack_array, cache.unpack_array)([TEXT])
    assert asked.count(TEXT) == 2
    assert not any(word.encode() in store.path.read_bytes() for word in TEXT.split() if len(word) > 4)


def test_an_array_of_objects_is_refused():
    with pytest.raises(ValueError, match="pickle"):
        cache.pack_array(np.array([{}], dtype=object))


def test_equal_pairs_are_asked_once_and_an_abstention_again(store):
    asked = []

    def ask(reports, references):
        asked.extend(zip(reports, references, strict=True))
        return [
            Judgement(None, "timed out") if r == "slow" else Judgement(len(r) / 9, details={"n": 1}) for r in reports
        ]

    for _ in range(2):
        found = cache.cached_scores(store, "1", ["ab", "slow", "ab", "abc"], ["r"] * 4, ask)
        assert [a.score for a in found] == [2 / 9, None, 2 / 9, 3 / 9] and found[1].error == "timed out"
        assert found[0].details == {"n": 1}
    assert asked == [("ab", "r"), ("slow", "r"), ("abc", "r"), ("slow", "r")]
    assert cache.cached_scores(None, "1", ["ab", "ab"], ["r", "r"], ask)[1].score == 2 / 9 and len(asked) == 5
