"""A tiny OpenAI-compatible server on loopback whose behaviour a test chooses, and that remembers what it was asked."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(text, finish="stop", tokens=(7, 3)):
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}, "text": text}
    return 200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()


class Served:
    """What a running server has seen. `behave(number, body)` gives (status, headers, raw), or None to drop the line."""

    def __init__(self, behave):
        self.behave, self.bodies, self.headers, self.paths = behave, [], [], []
        self.now = self.most = 0
        self.lock = threading.Lock()

    def prompt(self, i=-1):
        body = self.bodies[i]
        return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


@contextmanager
def serve(behave):
    served = Served(behave)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with served.lock:
                number = len(served.bodies)
                served.bodies.append(body)
                served.headers.append(dict(self.headers))
                served.paths.append(self.path)
                served.now += 1
                served.most = max(served.most, served.now)
            try:
                result = served.behave(number, body)
            finally:
                with served.lock:
                    served.now -= 1
            if result is None:
                self.connection.close()
                return
            status, headers, raw = result
            try:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for part in [raw] if "X-Drip" not in headers else [raw[i : i + 1] for i in range(len(raw))]:
                    self.wfile.write(part)
                    self.wfile.flush()
                    time.sleep(float(headers.get("X-Drip", 0)))
            except OSError:
                pass  # the client went away

        do_GET = do_POST

        def handle(self):
            try:
                super().handle()
            except (OSError, ValueError):
                pass  # a connection that the test dropped

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1"

    def stop():
        server.shutdown()
        server.server_close()

    served.stop = stop
    try:
        yield served
    finally:
        if thread.is_alive():
            stop()
        thread.join(5)
