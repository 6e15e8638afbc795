"""Nothing asks the network unless the recipe says so."""

import socket

import pytest
from tests.policies import family_models

from chexalign.errors import RecipeError
from chexalign.policies import Policy


@pytest.fixture
def asked(monkeypatch):
    """Every attempt to reach anything, refused."""
    attempts = []

    def refuse(*arguments, **_):
        attempts.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


@pytest.mark.parametrize("name", ["llava-llama", "qwen2.5-vl", "gemma3", "llama"])
def test_a_local_folder_opens_without_asking(name, tmp_path, asked):
    Policy.load(family_models.write(name, tmp_path / name))
    assert not asked


def test_an_absent_hub_id_is_one_line_and_asks_nobody(asked):
    with pytest.raises(RecipeError, match="StanfordAIMI/nowhere.* is not on this machine: give a checkpoint folder"):
        Policy.load("StanfordAIMI/nowhere")
    assert not asked


def test_download_does_ask(asked):
    with pytest.raises(RecipeError, match="StanfordAIMI/nowhere"):
        Policy.load("StanfordAIMI/nowhere", download=True)
    assert asked
