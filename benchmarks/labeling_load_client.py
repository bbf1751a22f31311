"""The annotators of `labeling_load.py`: one lean HTTP client for both sides, a tight loop and a paced one.

It runs on the same cores as the server, so it does as little as it can: raw streams, one connection each for as long
as the server keeps it, no parsing beyond status, length and cookies. Sides differ only in their `Step`: what one
annotator sends from the click that votes to the moment the next item has arrived.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PERIOD = 5.0  # seconds between two votes of a paced annotator
SHOWN = 5  # error messages that are kept


class Failed(Exception):
    """A request that did not end as it should."""


class Connection:
    """One browser's connection to one server: keep-alive where the server allows it, cookies kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.origin = f"http://{parts.netloc}"
        self.host, self.port = parts.hostname or "localhost", parts.port or 80
        self.cookies: dict[str, str] = {}
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.state: dict[str, Any] = {}  # the step's own: what is on this annotator's screen

    async def request(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json", header: str = ""
    ) -> tuple[int, bytes]:
        """(status, body). A kept connection that the server has closed meanwhile is opened again, once."""
        message = self._message(method, path, body, kind, header)
        for attempt in (1, 2):
            kept = self._streams is not None
            try:
                reader, writer = self._streams or await asyncio.open_connection(self.host, self.port)
                self._streams = (reader, writer)
                writer.write(message)
                head = await reader.readuntil(b"\r\n\r\n")
                return await self._rest(reader, head)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.close()
                if not kept or attempt == 2:
                    raise Failed(f"{method} {path}: {error!r}") from error
        raise AssertionError("not reached")

    def close(self) -> None:
        """Drop the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None

    def _message(self, method: str, path: str, body: bytes, kind: str, header: str) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAccept: */*\r\n{header}"
        if self.cookies:
            head += "Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()) + "\r\n"
        if method != "GET":
            head += f"Origin: {self.origin}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def _rest(self, reader: asyncio.StreamReader, head: bytes) -> tuple[int, bytes]:
        lines = head.decode("latin-1").split("\r\n")
        status, length, close, chunked = int(lines[0].split(" ", 2)[1]), 0, False, False
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            name = name.lower()
            if name == "content-length":
                length = int(value)
            elif name == "connection":
                close = value.lower() == "close"
            elif name == "transfer-encoding":
                chunked = value.lower() == "chunked"
            elif name == "set-cookie":
                cookie, _, content = value.partition(";")[0].partition("=")
                self.cookies[cookie] = content
        body = await _chunks(reader) if chunked else await reader.readexactly(length)
        if close:
            self.close()
        return status, body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        found.append((await reader.readexactly(size + 2))[:-2])
    await reader.readuntil(b"\r\n")
    return b"".join(found)


Step = Callable[[Connection], Awaitable[None]]  # vote on the item on screen, and have the next; raises Failed


@dataclass
class Tally:
    """What one case came to."""

    seconds: list[float] = field(default_factory=list)  # of each vote that counts
    errors: list[str] = field(default_factory=list)
    duration: float = 0.0  # seconds in which they were given

    def figures(self, case: str) -> dict[str, float]:
        """p50 and p95 in milliseconds, votes per second and the number of errors, named by the case."""
        if not self.seconds:
            raise SystemExit(f"{case}: no vote in {self.duration:.0f} s; {self.errors[:SHOWN]}")
        ordered = sorted(self.seconds)
        return {
            f"{case} p50_ms": 1000 * quantile(ordered, 0.50),
            f"{case} p95_ms": 1000 * quantile(ordered, 0.95),
            f"{case} votes_per_second": len(ordered) / self.duration,
            f"{case} errors": len(self.errors),
        }


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def tight(people: Sequence[Connection], step: Step, warm_up: float, duration: float) -> Tally:
    """Everyone votes again as soon as the next item is there; votes that begin after the warm-up count."""
    tally, start = Tally(duration=duration), time.perf_counter() + warm_up

    async def loop(person: Connection) -> None:
        while (began := time.perf_counter()) < start + duration:
            await _one(person, step, tally, began >= start)

    await asyncio.gather(*(loop(person) for person in people))
    return tally


async def paced(people: Sequence[Connection], step: Step, duration: float, rng: random.Random) -> Tally:
    """Everyone votes once per PERIOD, each at a moment of their own; the first round is the warm-up."""
    tally, start = Tally(), time.perf_counter()

    async def loop(person: Connection, phase: float) -> None:
        for turn in range(1 + max(1, round(duration / PERIOD))):
            await asyncio.sleep(start + phase + turn * PERIOD - time.perf_counter())
            await _one(person, step, tally, turn > 0)

    await asyncio.gather(*(loop(person, rng.uniform(0, PERIOD)) for person in people))
    tally.duration = (
        time.perf_counter() - start - PERIOD
    )  # longer than asked for when the server can't keep up
    return tally


async def _one(person: Connection, step: Step, tally: Tally, counts: bool) -> None:
    began = time.perf_counter()
    try:
        await step(person)
    except Failed as error:
        tally.errors.append(str(error))
        await asyncio.sleep(0.05)  # a broken server is not hammered
    else:
        if counts:
            tally.seconds.append(time.perf_counter() - began)


def load() -> str:
    """The machine's load averages, for the reader who judges the figures."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
