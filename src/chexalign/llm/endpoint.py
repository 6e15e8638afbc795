"""Asks an OpenAI-compatible endpoint over HTTP, with the standard library: vLLM, SGLang, llama.cpp, `transformers serve`.

Reports are patient data. Only a server on this machine is asked unless `allow_remote` says otherwise; redirects are never
followed; an API key comes from an environment variable, goes into one header and nowhere else. Retries wait with
exponential back-off and jitter; a time-out is an abstention; a dead server opens the circuit (breaker.py).
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from chexalign.errors import Abstain, RecipeError
from chexalign.llm.breaker import Breaker
from chexalign.llm.reply import Answer, Passing, Prompt, Reply, Unavailable, Usage, as_dicts, room_for

FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0  # seconds before the first and any later retry, ± half # our choice
MOST_BYTES = 16 << 20  # of one answer
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # try the same request again
MISTAKE = {401, 403, 404, 405, 407}  # the address, the model's name or the key is wrong: no request will do better


def base_url(url: str, allow_remote: bool) -> str:
    """The address up to and with /v1. Raises RecipeError for one that may not be used."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RecipeError(f"url {url!r} is no address of an endpoint; write for example http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise RecipeError("url holds a name, a password or a query; a key comes from the variable named in api_key_env")
    if not (allow_remote or is_loopback(parts.hostname)):
        raise RecipeError(
            f"url {url} is not on this machine, and reports would be sent there; if they may leave, add allow_remote: true"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/completions") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_loopback(host: str) -> bool:
    """True for this machine by number or by the name localhost; other names are not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Item = TypeVar("Item")
Given = TypeVar("Given")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None  # the answer stays a 3xx, which is an error here


class _Failed(Exception):
    """One request failed. `again`: worth a retry; `wait`: seconds the server asked for."""

    def __init__(self, answer: Abstain, again: bool = False, wait: float = 0.0, kind: str = ""):
        super().__init__(str(answer))
        self.answer = answer
        self.again = again
        self.wait = wait
        self.kind = kind


@dataclass
class LlmClient:
    """A Backend. `extra` is merged into each request's JSON; a null there takes a field out."""

    url: str  # as base_url gives it
    model: str
    usage: Usage
    api_key_env: str | None = None
    concurrency: int = 8
    timeout: float = 120.0  # seconds for one answer
    retries: int = 4
    max_tokens: int | Literal["auto"] = 1024  # auto: what the prompt leaves of `context_tokens` (reply.room_for)
    context_tokens: int = 2048
    extra: dict[str, object] = field(default_factory=dict)
    breaker: Breaker = field(default_factory=Breaker)
    _chance: random.Random = field(default_factory=random.Random, repr=False)

    def __post_init__(self) -> None:
        here = is_loopback(urlsplit(self.url).hostname or "")
        proxies = [urllib.request.ProxyHandler({})] if here else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not (key.isascii() and key.isprintable()):
            raise RecipeError(
                f"the environment variable {self.api_key_env} holds no key: there are odd characters in it"
            )
        return key

    def __call__(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """One answer per prompt, in order."""
        return self.each(prompts, self._post)

    def each(self, items: Sequence[Item], send: Callable[[Item, int], Given]) -> list[Given | Abstain]:
        """`send(item, tries before)` for each item, at most `concurrency` at a time, with retries; in order."""
        if not items:
            return []
        with ThreadPoolExecutor(max_workers=min(self.concurrency, len(items))) as pool:
            return list(pool.map(lambda item: self._ask(item, send), items))

    def _ask(self, item: Item, send: Callable[[Item, int], Given]) -> Given | Abstain:
        for tried in range(self.retries + 1):
            if why := self.breaker.open():
                return Unavailable(f"not asked, the endpoint {self.url} is not answering: {why}")
            if tried:
                self.usage.add(retries=1)
            try:
                reply = send(item, tried)
            except _Failed as failure:
                if failure.again and tried < self.retries:
                    time.sleep(max(failure.wait, self._wait(tried)))
                    continue
                return self._give_up(failure, tried)
            self.breaker.good()
            return reply
        raise AssertionError("unreachable")

    def _wait(self, tried: int) -> float:
        return min(FIRST_WAIT * 2**tried, LONGEST_WAIT) * self._chance.uniform(0.5, 1.5)

    def _give_up(self, failure: _Failed, tried: int) -> Abstain:
        """The abstention of a prompt that got no answer, told to the breaker."""
        why = f"{failure.answer}" + (f", {tried + 1} tries" if tried else "")
        if failure.kind == "prompt" and self.breaker.ever_good:
            return type(failure.answer)(why)  # this prompt is at fault, not the endpoint
        dead = self.breaker.bad(why, at_once=failure.kind in ("connection", "mistake"))
        if dead:
            return Unavailable(f"the endpoint {self.url} is not answering: {why}")
        return type(failure.answer)(why)

    def _post(self, prompt: Prompt, tried: int) -> Reply:
        raw_text = isinstance(prompt, str)
        asked: dict[str, Any] = {"prompt": prompt} if isinstance(prompt, str) else {"messages": as_dicts(prompt)}
        body = {"model": self.model, **asked, "max_tokens": self._room(prompt), "temperature": 0}
        return self._read(self.request("completions" if raw_text else "chat/completions", body), raw_text, tried)

    def _room(self, prompt: Prompt) -> int:
        if self.max_tokens != "auto":
            return self.max_tokens
        try:
            return room_for(prompt, self.context_tokens)
        except Abstain as reason:
            raise _Failed(reason, kind="prompt") from None

    def request(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request, `extra` merged into it; the answer's JSON. For use inside `each`."""
        data = json.dumps({k: v for k, v in {**body, **self.extra}.items() if v is not None}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key_env:
            headers["Authorization"] = f"Bearer {self._key()}"
        request = urllib.request.Request(f"{self.url}/{path}", data, headers, method="POST")
        self.usage.add(requests=1)
        raw = self._send(request)
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._odd(raw.decode("utf-8", "replace"))
        return answer

    def _odd(self, text: str) -> _Failed:
        what = f"an answer that is no chat completion: {self._clean(text[:400])}"
        return _Failed(Passing(what), again=True, kind="overload")

    def _send(self, request: urllib.request.Request) -> bytes:
        deadline = time.monotonic() + self.timeout
        late = _Failed(Passing(f"no answer within {self.timeout:g} s"), kind="time-out")
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return _body(response, deadline)
        except urllib.error.HTTPError as error:
            raise self._status(error.code, error.headers, _first_words(error)) from None
        except TimeoutError:
            raise late from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise late from None
            raise _Failed(Passing(f"no connection ({error.reason})"), again=True, kind="connection") from None
        except (OSError, http.client.HTTPException) as error:
            why = f"the connection was lost ({type(error).__name__})"
            raise _Failed(Passing(why), again=True, kind="connection") from None

    def _status(self, code: int, headers: Message, raw: bytes) -> _Failed:
        why = f"HTTP {code}: {self._clean(raw.decode('utf-8', 'replace'))}"
        if code in AGAIN:
            return _Failed(Passing(why), again=True, wait=_retry_after(headers), kind="overload")
        if code in MISTAKE or 300 <= code < 400:
            return _Failed(Passing(why), kind="mistake")
        return _Failed(Abstain(why), kind="prompt")

    def _clean(self, text: str) -> str:
        """A server's words for one line, without the key, should it repeat it."""
        key = self._key()
        line = " ".join(text.replace(key, "…").split() if key else text.split())
        return line[:200] or "no reason given"

    def _read(self, answer: dict[str, Any], raw_text: bool, tried: int) -> Reply:
        try:
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            text = choice["text"] if raw_text else choice["message"]["content"]
            asked, spent = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        except (KeyError, IndexError, TypeError, AttributeError):
            raise self._odd(json.dumps(answer, ensure_ascii=False)) from None
        if not isinstance(text, str):
            raise _Failed(Abstain("the model answered without text"), kind="prompt")
        self.usage.add(prompt_tokens=asked or 0, completion_tokens=spent or 0)
        return Reply(text, asked, spent, finished=choice.get("finish_reason") != "length", retries=tried)


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) else None


def _first_words(error: urllib.error.HTTPError) -> bytes:
    """What came with an error status, as far as it is there."""
    with error:
        try:
            words: bytes = error.read1(4000)
        except (OSError, http.client.HTTPException):
            return b""
    return words


def _body(response: Any, deadline: float) -> bytes:
    """The whole body, or TimeoutError when it is not there by the deadline."""
    parts, size = [], 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise _Failed(Abstain(f"an answer of more than {MOST_BYTES >> 20} MiB"), kind="prompt")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:
        raise http.client.IncompleteRead(b"".join(parts), response.length)
    return b"".join(parts)


def _retry_after(headers: Message) -> float:
    """The seconds of a Retry-After header, at most LONGEST_WAIT; its date form is not read."""
    value = headers.get("Retry-After", "")
    return min(float(value), LONGEST_WAIT) if value.isascii() and value.isdigit() else 0.0
