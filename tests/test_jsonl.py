import errno
import json

import pytest

from chexalign.errors import WorkError
from chexalign.jsonl import Ledger, atomic_write, read_lines, read_records, write_json, write_records
from chexalign.records import Completion


def row(i: int, j: int = 0) -> Completion:
    return Completion(f"s{i}", j, f"text {i}", -1.0, 2, "stop", "tiny", 0)


def test_ledger_resumes_and_finishes_in_order(tmp_path):
    path = tmp_path / "c.jsonl"
    Ledger(path, Completion).append([row(2), row(1)])
    again = Ledger(path, Completion)
    assert row(1).key() in again and not again.finished and not path.exists()
    again.append([row(0)])
    again.finish(lambda r: r.study_id)
    assert [r.study_id for r in read_records(path, Completion)] == ["s0", "s1", "s2"]
    assert [p.name for p in tmp_path.iterdir()] == ["c.jsonl"]
    assert Ledger(path, Completion).finished


def test_a_torn_last_line_is_cut(tmp_path):
    path = tmp_path / "c.jsonl"
    Ledger(path, Completion).append([row(0), row(1)])
    part = tmp_path / "c.jsonl.part"
    whole = part.read_bytes()
    for cut in (1, 5, len(row(1).to_json())):
        part.write_bytes(whole[:-cut])
        ledger = Ledger(path, Completion)
        assert list(ledger.rows) == [("s0", 0)]
    ledger.append([row(1)])
    assert part.read_bytes() == whole


def test_a_key_cannot_be_written_twice(tmp_path):
    ledger = Ledger(tmp_path / "c.jsonl", Completion)
    ledger.append([row(0)])
    with pytest.raises(WorkError, match="duplicate row"):
        ledger.append([row(0)])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="No space"), atomic_write(path) as handle:
        handle.write("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_nan_never_reaches_the_disk(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_bad_lines_are_numbered_and_good_ones_survive(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2\n[3]\n{"a": 4}\n')
    rows = dict(read_lines(path))
    assert rows[1] == {"a": 1} and rows[5] == {"a": 4}
    assert "invalid JSON" in rows[3] and "object is needed" in rows[4] and 2 not in rows


def test_reading_a_damaged_stage_file_names_file_and_line(tmp_path):
    path = tmp_path / "c.jsonl"
    write_records(path, [row(0)])
    with open(path, "a") as handle:
        handle.write('{"study_id": "s1"}\n')
    with pytest.raises(WorkError, match=r"c\.jsonl:2: missing field"):
        read_records(path, Completion)
    with pytest.raises(WorkError, match="run the stage that writes it"):
        read_records(tmp_path / "absent.jsonl", Completion)


def test_lines_too_deep_or_too_long_a_number_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": ' + "9" * 5000 + '}\n{"a": ' + "[" * 100000 + '\n{"a": 2}\n')
    found = dict(read_lines(path))
    assert found[1] == {"a": 1} and found[4] == {"a": 2}
    assert "4300 digits" in found[2] and "too deep" in found[3]
