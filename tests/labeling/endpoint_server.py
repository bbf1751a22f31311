"""A small real HTTP server that speaks, and misspeaks, the OpenAI chat protocol. What it does is the model's name.

with EndpointServer() as server:
    Endpoint("one", server.url, "fast")
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

WORDS = [
    "harbour",
    "lantern",
    "quiet",
    "winter",
    "market",
    "yellow",
    "ladder",
    "thunder",
    "copper",
    "garden",
    "window",
    "paper",
    "river",
    "mountain",
]


def prose(seed: object, length: int) -> str:
    """Some text of about so many characters, the same for the same seed."""
    rng, words = random.Random(str(seed)), list[str]()
    while sum(len(word) + 1 for word in words) < length:
        words.append(rng.choice(WORDS))
    return " ".join(words).capitalize() + "."


def event(**content: Any) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def delta(text: str, **more: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None, **more}])


END = event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]) + b"data: [DONE]\n\n"


def paced(text: str, size: int, wait: float) -> Iterator[bytes]:
    """The text in pieces of `size` characters, one every `wait` seconds, then the end."""
    yield event(choices=[{"index": 0, "delta": {"role": "assistant"}}])
    for start in range(0, len(text), size):
        time.sleep(wait)
        yield delta(text[start : start + size])
    yield END


class EndpointServer:
    """Runs in threads of the test's process; `asked` holds the bodies, `gone` counts askers that went away."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gone = 0
        self.texts: dict[str, str] = {}  # model -> what it writes, instead of prose by the seed
        self.piece = 4  # characters at once, where the model's name says nothing else
        handler = type("Handler", (_Handler,), {"endpoint": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def tries(self, model: str) -> int:
        """How often a model was asked."""
        return sum(body["model"] == model for body in self.asked)

    def answer(self, body: dict[str, Any]) -> tuple[int, str, Iterator[bytes]]:
        """(status, content type, chunks) of a request."""
        model, tries = body["model"], self.tries(body["model"])
        text = self.texts.get(model) or prose((model, body.get("seed")), 700)
        stream, whole = "text/event-stream", "application/json"
        pieces: Iterator[bytes] = paced(text, self.piece, 0)
        message = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
        if model == "fast":
            pieces = paced(text, 120, 0.005)
        elif model == "slow":
            pieces = paced(text, 12, 0.06)  # 200 characters a second
        elif model == "stalls":
            pieces = iter([delta(text[:40]), *([b": alive\n\n"] * 0)])
            pieces = _then_wait(pieces)
        elif model == "breaks":
            pieces = _then_break(iter([delta(text[:40])]))
        elif model == "error inside":
            pieces = iter([delta(text[:40]), event(error={"message": "out of memory"})])
        elif model == "no end":
            pieces = iter([delta(text[:40])])
        elif model == "garbage":
            pieces = iter([b"data: {not json\n\n", b"\xff\xfe\x00\n\n"])
        elif model == "huge":
            pieces = iter([delta("x" * 10_000)] * 50 + [END])
        elif model == "one line":
            pieces = iter([b"data: " + b"x" * 100_000] * 50)
        elif model == "empty":
            pieces = iter([delta("  \n"), END])
        elif model == "down":
            return 500, whole, iter([b'{"error": "secret-stack-trace"}'])
        elif model == "flaky" and tries < 3:
            return 503, whole, iter([b"{}"])
        elif model == "forbidden":
            return 401, whole, iter([b'{"error": "no key"}'])
        elif model == "moved":
            return 307, whole, iter([b""])
        elif model == "plain":
            return 200, whole, iter([json.dumps(message).encode()])
        elif model == "strict" and ("seed" in body or body["stream"]):
            return 400, whole, iter([b'{"error": "unknown field seed"}'])
        elif model == "strict":
            return 200, whole, iter([json.dumps(message).encode()])
        elif model == "same":
            pieces = paced("Always the very same words, whoever asks.", 9, 0)
        elif model == "same at first":
            pieces = paced("Always the very same words, whoever asks." if tries < 3 else text, 9, 0)
        elif model == "leaks":
            pieces = paced(prose(1, 300) + " As an AI made by OpenAI I like it. " + prose(2, 300), 20, 0.01)
        elif model == "untidy":
            pieces = iter(_untidy(text))
        return 200, stream, pieces


def _untidy(text: str) -> list[bytes]:
    """A valid stream as no textbook shows it: comments, other fields, all kinds of line ends, cut anywhere."""
    half = json.dumps({"choices": [{"index": 0, "delta": {"content": text[5:]}, "finish_reason": None}]})
    bytes_ = (
        b"\xef: a comment\r\nevent: message\r\nid: 7\r\n" + delta("  \n" + text[:5]).replace(b"\n", b"\r\n")
        + b"data:\n\ndata: " + half.replace(", ", ",\ndata: ", 1).encode() + b"\r\r"
        + event(choices=[], usage={"total_tokens": 3}) + event(choices=[{"index": 1, "delta": {"content": "no"}}])
        + b'data: {"choices": [{"index": 0, "delta": {"content": " \\ud83d"}}]}\n'
        + b'data: {"choices": [{"index": 0, "delta": {"content": "\\ude00 \\ud800."}}]}\n\n'
        + END
    )  # fmt: skip
    return [bytes_[i : i + 7] for i in range(0, len(bytes_), 7)]


def _then_wait(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield from pieces
    while True:
        time.sleep(0.1)
        yield b": still here\n\n"


def _then_break(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield from pieces
    raise ConnectionAbortedError


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: askers go away in the middle, that is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    endpoint: EndpointServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.endpoint.asked.append(body)
        self.endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path != "/v1/chat/completions":
            self.send_error(404)
            return
        status, kind, chunks = self.endpoint.answer(body)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for chunk in chunks:
                if chunk:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.close()
        except OSError:
            self.endpoint.gone += 1
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
