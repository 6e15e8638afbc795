"""`chexalign review`: the server of the page. Standard library alone; this machine alone, under a random token; no script.

A request without the token, or under another host name than this machine's (DNS rebinding), learns nothing.
"""

from __future__ import annotations

import io
import secrets
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chexalign.data.image_errors import ImageError
from chexalign.data.images import load_image
from chexalign.policies.presets import most_images
from chexalign.records import Study
from chexalign.review.session import Session, answer, page
from chexalign.run.studies import image_root

LONGEST = 1 << 18  # bytes of an answer


class Handler(BaseHTTPRequestHandler):
    """Serves one session to who knows its token; every other path is 404. Texts never reach the log."""

    timeout = 30

    def __init__(self, session: Session, *rest: Any):
        self.session = session
        super().__init__(*rest)

    def do_GET(self) -> None:
        """The page of item `i` (the next open one without it), or image `k` of item `i`."""
        where, query = self._where()
        number = query.get("i", "")
        i = int(number) if number.isdecimal() and int(number) < len(self.session.items) else None
        if where == "":
            nonce = secrets.token_urlsafe(12)
            shown = page(self.session, self.session.next() if i is None else i, nonce)
            self._send(200, shown.encode(), "text/html; charset=utf-8", nonce)
        elif where == "image" and i is not None:
            self._image(self.session.items[i].study, query.get("k", ""))
        else:
            self._send(404, b"not found")

    def do_POST(self) -> None:
        """One answer. 413 for a body over LONGEST bytes, 400 with the reason for a bad form."""
        where, _ = self._where()
        length = self.headers.get("Content-Length", "")
        if where != "" or not length.isdecimal() or int(length) > LONGEST:
            self.close_connection = True
            self._send(404 if where != "" else 413, b"not found" if where != "" else b"the answer is too long")
            return
        try:
            form = parse_qs(
                self.rfile.read(int(length)).decode(), keep_blank_values=True, errors="strict", max_num_fields=9
            )
            number = answer(self.session, {k: v[0] for k, v in form.items()})
        except ValueError as error:  # also of a number or text that is none
            self._send(400, f"{error}. Go back in the browser to change it.".encode())
            return
        after = self.session.next(number)
        self.send_response(303)
        self.send_header("Location", f"/{self.session.token}/" + ("" if after is None else f"?i={after}"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _where(self) -> tuple[str | None, dict[str, str]]:
        """What is asked for behind the token; None without it, or under another name of this machine (DNS rebinding)."""
        host, port = self.headers.get("Host", ""), self.connection.getsockname()[1]
        url = urlsplit(self.path)
        _, token, *rest = [*url.path.split("/", 2), ""]
        known = secrets.compare_digest(token.encode(), self.session.token.encode())
        if not known or host not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return None, {}
        return rest[0], {k: v[0] for k, v in parse_qs(url.query).items()}

    def _image(self, study: Study, k: str) -> None:
        run = self.session.run
        if not k.isdecimal() or int(k) >= len(study.images[: most_images(run.recipe)]):
            self._send(404, b"not found")
            return
        try:
            image, data = load_image(image_root(run), study.images[int(k)][0]), io.BytesIO()
        except ImageError as error:
            self._send(404, str(error).encode())
            return
        image.save(data, "PNG")
        self._send(200, data.getvalue(), "image/png")

    def _send(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8", nonce: str = "") -> None:
        style = f"style-src 'nonce-{nonce}'; img-src 'self'; form-action 'self'; " if nonce else ""
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"default-src 'none'; {style}base-uri 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal shows the address alone."""


def open_server(session: Session, port: int = 0) -> ThreadingHTTPServer:
    """A server of this machine alone; `serve_forever` it."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, session))


def address(session: Session, server: ThreadingHTTPServer) -> str:
    """The link with the token: whoever has it can read the session's texts."""
    return f"http://127.0.0.1:{server.server_address[1]}/{session.token}/"
