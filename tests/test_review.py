"""The review page over real HTTP: what is shown, what is hidden, what is written, who is turned away."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from urllib.parse import urlencode

import pytest

from chexalign.errors import WorkError
from chexalign.jsonl import read_records, write_records
from chexalign.records import Completion, Study
from chexalign.review.feedback import read_feedback
from chexalign.review.server import LONGEST, address, open_server
from chexalign.review.session import answer, open_session
from chexalign.run.folder import finished_run

NASTY = "Small effusion. <script>alert(1)</script> \"quoted\" & 'single' é"


@pytest.fixture
def folder(tiny_run, tmp_path):
    """A run's folder whose samples differ for certain; the first study's texts want escaping."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("policy", "baseline", "features"))
    rows = read_records(folder / "completions.jsonl", Completion)
    texts = ["Small left effusion.", "No effusion.\nThe heart is normal.", "Large right effusion."]
    rows = [replace(c, text=f"{texts[c.sample_index]} {c.study_id}") for c in rows]
    write_records(folder / "completions.jsonl", rows)
    return folder


def session_of(folder, reviewer=""):
    return open_session(finished_run(folder), folder / "feedback.jsonl", reviewer)


@contextmanager
def served(session):
    server = open_server(session)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Client(server.server_address[1], session.token)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Client:
    def __init__(self, port, token):
        self.port, self.root = port, f"/{token}/"

    def ask(self, method, path, body=None, host=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Host": host or f"127.0.0.1:{self.port}", **headers}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        found = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return found

    def get(self, rest="", **more):
        return self.ask("GET", self.root + rest, **more)

    def post(self, **form):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", self.root, urlencode(form), **kind)


def unchanged(item):
    """The form's texts as a browser sends them."""
    return {f"text_{i}": text.replace("\n", "\r\n") for i, text in enumerate(item.texts)}


def rows_of(folder):
    return [json.loads(line) for line in (folder / "feedback.jsonl").read_text().splitlines()]


def test_an_answer_is_written_and_the_next_study_follows(folder):
    session = session_of(folder)
    with served(session) as client:
        status, headers, body = client.get()
        assert status == 200 and f"0 of {len(session.items)} studies reviewed" in body.decode()
        for text in session.items[0].texts:
            assert text.split("\n")[0] in body.decode()
        status, headers, _ = client.post(i=0, verdict="b", **unchanged(session.items[0]))
        assert status == 303 and headers["Location"] == f"{client.root}?i=1"
        assert "1 of" in client.get("?i=1")[2].decode()
    a, b = session.items[0].texts
    (row,) = rows_of(folder)
    assert (row["chosen"], row["rejected"], row["shown"]) == (b, a, [a, b])
    assert row["study_id"] == session.items[0].study.study_id and row["reviewer"] == "" and row["time"]
    studies = {s.study_id: s for s in read_records(folder / "studies.jsonl", Study)}
    assert read_feedback(folder / "feedback.jsonl", studies).preferences[0].chosen == b


def test_edits_and_ties(folder):
    session = session_of(folder)
    with served(session) as client:
        mended = "Mended — é.\r\nSecond line."
        assert client.post(i=1, verdict="edit_a", text_0=mended, text_1=session.items[1].texts[1])[0] == 303
        assert client.post(i=2, verdict="tie")[0] == 303
        same = session.items[3].texts[1].replace("\n", "\r\n") + " "
        status, _, body = client.post(i=3, verdict="edit_b", text_1=same)
        assert status == 400 and b"the report was not changed" in body
        assert client.post(i=3, verdict="edit_b", text_1="  ")[0] == 400
        for verdict in ("a", "tie", "edit_b"):  # nothing that was typed is lost by the wrong button
            status, _, body = client.post(i=3, verdict=verdict, text_0="changed", text_1=same)
            assert status == 400 and b"report A was changed: save that with the button below it" in body
    first, second = rows_of(folder)
    assert (first["edited"], first["original"]) == ("Mended — é.\nSecond line.", session.items[1].texts[0])
    assert second["tied"] is True and "chosen" not in second


def test_bad_answers_write_nothing(folder):
    session = session_of(folder)
    with served(session) as client:
        for form in ({}, {"i": "0"}, {"i": "99999", "verdict": "a"}, {"i": "-1", "verdict": "a"}, {"i": "²", "verdict": "a"},
                     {"i": "0", "verdict": "drop"}):  # fmt: skip
            assert client.post(**form)[0] == 400, form
        assert client.ask("POST", client.root, b"i=0&verdict=\xff")[0] == 400
        assert client.ask("POST", client.root, b"i=0&verdict=a&" + b"&".join([b"x=1"] * 50))[0] == 400
        assert client.ask("POST", client.root, b"x" * (LONGEST + 1))[0] == 413
        with pytest.raises(ValueError, match="no such study"):
            answer(session, {})
    assert not (folder / "feedback.jsonl").exists()


def test_no_one_without_the_token_or_under_another_name_learns_anything(folder):
    session = session_of(folder)
    with served(session) as client:
        for path in (
            "/",
            "/wrong/",
            "/wrong/image?i=0&k=0",
            f"/{session.token[:-1]}/",
            "/%C3%A9/",
        ):
            status, _, body = client.ask("GET", path)
            assert status == 404 and body == b"not found"
        assert client.get(host="evil.example")[0] == 404
        assert client.get(host=f"localhost:{client.port}")[0] == 200
        assert client.ask("POST", "/wrong/", "i=0&verdict=a")[0] == 404
        assert client.ask("POST", client.root, "i=0&verdict=a", host="evil.example")[0] == 404
        outside = socket.socket()
        outside.settimeout(0.3)
        name = socket.gethostbyname(socket.gethostname())
        if not name.startswith("127."):
            with pytest.raises(OSError):
                outside.connect((name, client.port))
        outside.close()
    assert not (folder / "feedback.jsonl").exists() and len(session.token) >= 20
    with open_server(session) as server:
        assert address(session, server).startswith("http://127.0.0.1:") and server.server_address[0] == "127.0.0.1"


def test_the_page_escapes_runs_no_script_and_shows_nobody_who_wrote_what(folder):
    rows = read_records(folder / "completions.jsonl", Completion)
    write_records(folder / "completions.jsonl", [replace(c, text=f"{NASTY} {c.sample_index}") for c in rows])
    session = session_of(folder)
    with served(session) as client:
        _, headers, body = client.get()
    page = body.decode()
    assert "<script" not in page and "&lt;script&gt;" in page and "javascript:" not in page
    policy = headers["Content-Security-Policy"]
    nonce = re.search(r"'nonce-([^']+)'", policy)[1]
    assert policy.startswith("default-src 'none'") and "script-src" not in policy and f'<style nonce="{nonce}">' in page
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    assert "http://" not in page and "https://" not in page
    for hidden in ("baseline", "logp", "finding_f1", "rouge", "sample_index"):
        assert hidden not in page.split("</style>")[1], hidden


def test_images_are_shown_and_no_path_leaves_the_run(folder, tmp_path):
    session = session_of(folder)
    with served(session) as client:
        status, headers, body = client.get("image?i=0&k=0")
        assert status == 200 and headers["Content-Type"] == "image/png" and body.startswith(b"\x89PNG")
        assert b'<img src="image?i=0&amp;k=0"' in client.get()[2]
        for rest in ("image?i=0&k=9", "image?i=9999&k=0", "image", "image?i=0&k=../../manifest.json", "../manifest.json",
                     "image?i=0", "manifest.json"):  # fmt: skip
            assert client.get(rest)[0] == 404, rest
        (tmp_path / "secret.png").write_bytes(body)
        for path in ("../secret.png", str(tmp_path / "secret.png")):
            moved = replace(session.items[0].study, images=((path, "frontal"),))
            session.items[0] = replace(session.items[0], study=moved)
            status, _, told = client.get("image?i=0&k=0")
            assert status == 404 and b"leaves" in told


def test_sides_and_order_are_seeded_and_both_occur(folder):
    one, two = session_of(folder), session_of(folder)
    assert [i.texts for i in one.items] == [i.texts for i in two.items] and one.token != two.token
    ids = [i.study.study_id for i in one.items]
    assert ids != sorted(ids) and all(i.study.split == "train" for i in one.items)
    first = sum(i.texts[0].startswith("Small left") for i in one.items)
    assert 0 < first < len(one.items)


def test_the_same_command_goes_on_where_it_stopped_and_reviewers_are_apart(folder):
    session = session_of(folder, "ann")
    for i in (0, 1, 3):
        answer(session, {"i": str(i), "verdict": "a"})
    again = session_of(folder, "ann")
    assert again.next() == 2 and again.next(2) == 4 and session_of(folder, "bob").next() == 0
    with served(again) as client:
        assert "you preferred report A" in client.get("?i=3")[2].decode()
        client.post(i=3, verdict="tie")  # thought again
        assert "you found no difference" in client.get("?i=3")[2].decode()
        client.post(i=3, verdict="edit_b", text_1="mended")
        assert "you mended report B" in client.get("?i=3")[2].decode()
    studies = {s.study_id: s for s in read_records(folder / "studies.jsonl", Study)}
    found = read_feedback(folder / "feedback.jsonl", studies)
    assert found.counts["replaced"] == 2 and found.counts["tied"] == 0 and len(found.preferences) == 3
    assert [p.chosen for p in found.preferences][-1] == "mended"


def test_the_end_is_told(folder):
    session = session_of(folder)
    session.items = session.items[:2]
    with served(session) as client:
        assert client.post(i=0, verdict="a")[1]["Location"] == f"{client.root}?i=1"
        assert client.post(i=1, verdict="b")[1]["Location"] == client.root
        assert "All studies are reviewed" in client.get()[2].decode()


def test_an_impression_is_compared_beside_its_findings(folder):
    run = finished_run(folder)
    run.recipe = run.recipe.model_copy(
        update={"task": "impression", "studies": run.recipe.studies.model_copy(update={"max_images": 0})}
    )
    session = open_session(run, folder / "feedback.jsonl", "")
    with served(session) as client:
        page = client.get()[2].decode()
        assert "Which impression is better?" in page and "<img" not in page
        assert session.items[0].study.findings.split(".")[0] in page
        assert client.get("image?i=0&k=0")[0] == 404


def test_a_run_without_two_texts_per_study_is_refused(folder):
    rows = read_records(folder / "completions.jsonl", Completion)
    write_records(folder / "completions.jsonl", [replace(c, text="same") for c in rows])
    with pytest.raises(WorkError, match=r"no study with two different texts; raise sample\.n"):
        session_of(folder)
    (folder / "completions.jsonl").unlink()
    with pytest.raises(WorkError, match="completions.jsonl is missing"):
        session_of(folder)


def test_the_command_serves_until_ctrl_c_and_says_how_to_use_the_file(folder):
    words = [sys.executable, "-m", "chexalign", "review", str(folder), "--reviewer", "ann"]
    heard = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a suite in the background ignores it: so would its child
    program = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    try:
        line = program.stderr.readline()
        port, token = re.search(r"open http://127\.0\.0\.1:(\d+)/([^/]+)/ in a browser", line).groups()
        assert Client(int(port), token).post(i=0, verdict="a")[0] == 303
        time.sleep(0.1)
        program.send_signal(signal.SIGINT)
        rest = program.communicate(timeout=30)[1]
    finally:
        program.kill()
    assert program.returncode == 0 and "1 answers in" in rest and "--restart pairs" in rest
    assert rows_of(folder)[0]["reviewer"] == "ann"
