"""What `chexalign export` wrote, served by a real OpenAI-compatible server: the same text as `chexalign write` prints."""

import importlib.util

import pytest

from chexalign.policies.presets import wording_of
from chexalign.run.finished import export, write
from chexalign.run.folder import finished_run
from tests.serving import serve
from tests.test_impression import made  # noqa: F401 (a fixture)

ABSENT = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"no server without {', '.join(ABSENT)}: pip install 'chexalign[llm]'"),
]
FINDINGS = "Small left pleural effusion. Heart size is normal."


def test_a_server_gives_the_text_that_write_prints(made, tmp_path):  # noqa: F811
    from openai import OpenAI

    folder = export(made[1], tmp_path / "model")
    asked = wording_of(finished_run(made[1]).recipe)
    words = asked.findings.replace("{findings}", FINDINGS)
    turns = [{"role": "system", "content": asked.system}] if asked.system else []
    with serve(folder, tmp_path / "serve.log") as (url, _):
        client = OpenAI(base_url=url, api_key="none", timeout=60, max_retries=0)
        answer = client.chat.completions.create(
            model=str(folder), messages=[*turns, {"role": "user", "content": words}], max_tokens=12, temperature=0.0
        )
    assert answer.choices[0].message.content.strip() == write(made[1], FINDINGS, "", [])
