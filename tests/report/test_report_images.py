"""Images reach the page only from inside the run folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from make_run import make_run, write_json

from chexalign.errors import WorkError
from chexalign.report.inputs import image_uri
from chexalign.report.run.page import write_page

PNG = b"\x89PNG\r\n\x1a\nrest"


def test_png_and_jpeg_become_data_uris(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xffrest")
    assert (image_uri(tmp_path, "a.png") or "").startswith("data:image/png;base64,iVBOR")
    assert (image_uri(tmp_path, "a.jpg") or "").startswith("data:image/jpeg;base64,")


def test_missing_files_folders_and_other_formats_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<svg onload=alert(1)>")
    os.mkfifo(tmp_path / "pipe.png")
    assert [image_uri(tmp_path, name) for name in ("a.png", "b.png", ".", "pipe.png")] == [None] * 4


@pytest.mark.parametrize(
    "name", ["../secret.png", "x/../../secret.png", "/etc/hostname", "link.png", "folder/secret.png"]
)
def test_a_path_that_leaves_the_run_folder_is_refused(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (run / "link.png").symlink_to(tmp_path / "secret.png")
    (run / "folder").symlink_to(tmp_path)
    with pytest.raises(WorkError, match="outside the run folder"):
        image_uri(run, name)


@pytest.mark.parametrize("name", ["a\0.png", "loop.png"])
def test_an_unreadable_name_is_a_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(WorkError, match="cannot be read"):
        image_uri(tmp_path, name)


def test_an_absolute_path_is_refused_even_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(WorkError):
        image_uri(tmp_path, str(tmp_path / "a.png"))


def test_the_run_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(PNG)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    assert image_uri(tmp_path / "run", "a.png")


def test_the_page_is_not_written_when_an_image_escapes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", n_studies=2)
    rows = json.loads((folder / "examples.json").read_text())
    rows[0]["image"] = "../../etc/passwd"
    write_json(folder / "examples.json", rows)
    with pytest.raises(WorkError, match="outside the run folder"):
        write_page(folder)
    assert not (folder / "report.html").exists()
