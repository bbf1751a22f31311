"""One answer from an OpenAI-compatible endpoint, received as a stream. What servers really send is untidy:
comments, lines cut anywhere, usage without choices, one JSON body where a stream was asked for, no last word.

A `Draft` is filled while text arrives and never raises: it ends `finished`, or with a `failure` whose words are
for the server's log only. An answer that broke off is never taken for a whole one.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from palate.data.records import Message
from palate.labeling.endpoints import Endpoint, headers_of

LONGEST = 32_000  # characters of an answer; what comes after is cut off
MOST_BYTES = 16_000_000  # of a response
LONGEST_LINE = 1_000_000  # bytes
WAITS = (0.5, 2.0)  # seconds before the second and the third try
TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}
UNKNOWN_FIELD = {400, 422}  # a server that does not know `seed` or `stream` says so with one of these
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Broken(Exception):
    """No answer, or half of one; the words are for the log."""


class Refused(Broken):
    """The server answered with a status that is not 200."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"HTTP {status}: {words}")
        self.status = status


@dataclass
class Draft:
    """An answer on its way."""

    endpoint: Endpoint
    seed: int
    text: str = ""
    finished: bool = False
    finish_reason: str | None = None
    failure: str | None = None
    first_at: float = 0.0  # time.monotonic() of the first and the latest piece
    last_at: float = 0.0
    _half: str = field(default="", repr=False)  # first half of a character that was sent in two pieces

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.finished or self.failure is not None

    def add(self, piece: str) -> None:
        """Append a piece of text; halves of a character are joined, what is no character is marked as such."""
        piece, self._half = self._half + piece, ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._half, piece = piece[-1], piece[:-1]
        if not piece.isascii():
            piece = piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if not self.text:
            piece = piece.lstrip()  # some models begin with a space or an empty line: a habit would tell them
        if piece:
            self.last_at = time.monotonic()
            self.first_at = self.first_at or self.last_at
            self.text = (self.text + piece.replace("\0", ""))[:LONGEST]

    def speed(self, least: int) -> float | None:
        """Characters a second since the first piece; None before `least` characters have come."""
        if len(self.text) < least:
            return None
        return len(self.text) / max(self.last_at - self.first_at, 1e-3)


def new_client(most: int) -> httpx.AsyncClient:
    """A client with `most` connections of its own; it follows no redirects, so a key goes nowhere else."""
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=most, max_keepalive_connections=most))


async def write(client: httpx.AsyncClient, draft: Draft, messages: Sequence[Message]) -> None:
    """Ask the draft's endpoint and fill the draft until the answer is complete or has failed."""
    limit = draft.endpoint.timeout_s
    try:
        async with asyncio.timeout(limit):
            await _with_retries(client, draft, messages)
        if not draft.text.strip():
            raise Broken("the answer is empty")
        draft.finished = True
    except TimeoutError:
        draft.failure = f"not complete after {limit:g} s"
    except (Broken, httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        draft.failure = f"{type(error).__name__}: {error}"


async def _with_retries(client: httpx.AsyncClient, draft: Draft, messages: Sequence[Message]) -> None:
    """Try again while nothing has been received; after the first token an error is final."""
    plain, waits = False, iter(WAITS)
    while True:
        try:
            return await _ask(client, draft, messages, plain)
        except Refused as error:
            if error.status in UNKNOWN_FIELD and not plain:
                plain = True
                continue
            if error.status not in TRANSIENT or (wait := next(waits, None)) is None:
                raise
        except httpx.TransportError:
            if draft.text or (wait := next(waits, None)) is None:
                raise
        await asyncio.sleep(wait)


async def _ask(client: httpx.AsyncClient, draft: Draft, messages: Sequence[Message], plain: bool) -> None:
    endpoint = draft.endpoint
    system = [{"role": "system", "content": endpoint.system}] if endpoint.system else []
    body = {
        "model": endpoint.model,
        "messages": [*system, *messages],
        **endpoint.sampling,
        "stream": not plain,
    }
    if not plain:
        body["seed"] = draft.seed
    headers = {**headers_of(endpoint), "Accept-Encoding": "identity"}
    patience = httpx.Timeout(endpoint.timeout_s, connect=10.0)
    url = f"{endpoint.url}/chat/completions"
    async with client.stream("POST", url, json=body, headers=headers, timeout=patience) as response:
        if response.status_code != 200:
            raise Refused(response.status_code, (await _beginning(response)).decode("utf-8", "replace"))
        if "json" in response.headers.get("content-type", ""):
            _take_whole(draft, await _beginning(response, MOST_BYTES))
        else:
            await _take_stream(draft, response)


async def _beginning(response: httpx.Response, most: int = 300) -> bytes:
    found = b""
    async for chunk in response.aiter_bytes():
        found += chunk
        if len(found) >= most:
            break
    return found[:most]


def _take_whole(draft: Draft, body: bytes) -> None:
    """An answer in one JSON body."""
    _take(draft, _json(body.decode("utf-8", "replace")), "message")
    draft.finish_reason = draft.finish_reason or "stop"


async def _take_stream(draft: Draft, response: httpx.Response) -> None:
    """Server-sent events until the last word; a stream that ends without one has broken off."""
    events, received = Events(), 0
    async for chunk in response.aiter_bytes():
        received += len(chunk)
        for data in events.feed(chunk):
            if data == "[DONE]":
                draft.finish_reason = draft.finish_reason or "stop"
                return
            _take(draft, json.loads(data), "delta")
            if len(draft.text) >= LONGEST or received > MOST_BYTES:
                draft.finish_reason = "length"
                return
    if draft.finish_reason is None:
        raise Broken("the stream ended before the answer did")


def _take(draft: Draft, content: Any, part: str) -> None:
    """The text and the finish reason in one event or body; what has neither (usage, a ping) is passed over."""
    if not isinstance(content, dict):
        raise Broken(f"no chat completion: {str(content)[:80]!r}")
    if content.get("error"):
        raise Broken(f"the server reports an error: {str(content['error'])[:200]}")
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or first.get("index"):  # one answer was asked for
        return
    message = first.get(part)
    text = message.get("content") if isinstance(message, dict) else None
    if isinstance(text, str):
        draft.add(text)
    if reason := first.get("finish_reason"):
        draft.finish_reason = str(reason)[:40]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Broken(f"not JSON: {text[:80]!r}") from error


class Events:
    """The data of server-sent events in chunks of bytes that may be cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[str] = []  # of an event whose JSON is not complete yet

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The data that is complete with this chunk: valid JSON, or `[DONE]`."""
        self._rest += chunk
        held = b"\r" if self._rest.endswith(b"\r") else b""  # perhaps the first half of a line's end
        *lines, self._rest = _LINE_END.split(self._rest[: len(self._rest) - len(held)])
        self._rest += held
        if len(self._rest) > LONGEST_LINE:
            raise Broken(f"a line of over {LONGEST_LINE} bytes")
        for line in lines:
            if (data := self._line(line.decode("utf-8", "replace"))) is not None:
                yield data

    def _line(self, line: str) -> str | None:
        """What a line completes. Servers that send no empty line between events are understood, too."""
        if not line:
            if self._lines:
                raise Broken(f"not JSON: {self._lines[0][:80]!r}")
            return None
        name, _, value = line.partition(":")
        if name != "data" or not (value := value.removeprefix(" ")).strip():
            return None  # a comment, an id, an event's name, an empty ping
        data = "\n".join([*self._lines, value])
        if data.strip() == "[DONE]":
            return "[DONE]"
        try:
            json.loads(data)
        except ValueError:
            self._lines.append(value)
            if sum(map(len, self._lines)) > LONGEST_LINE:
                raise Broken(f"not JSON: {data[:80]!r}") from None
            return None
        self._lines = []
        return data
