"""Webhooks: signed POSTs that tell other programs of votes, and of batches that are done.

    - url: https://example.org/palate
      secret_env: PALATE_WEBHOOK_SECRET     # the environment variable that holds the secret
      events: [vote, batch_done]
      include: [texts]                      # prompts, answers and rationales too; left out by default

A vote is stored before any of this begins and never waits for it: the writer's thread only appends to a list.
Each webhook has a thread and a queue in memory. What waits there is lost when the process ends, and the oldest is
dropped when QUEUE events wait; the votes themselves are in the database, so a receiver that was away reads them
over /api/v1. How a receiver verifies a signature: docs/operations.md.
"""

import hashlib
import hmac
import json
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from fastapi import FastAPI, Request

from palate.config import LabelConfig, UserError
from palate.data.records import Vote, new_id
from palate.data.store import Store
from palate.labeling.batches import Batches, describe
from palate.labeling.desk import Desk
from palate.labeling.login import require

_log = logging.getLogger(__name__)
EVENTS = ("vote", "batch_done")
QUEUE = 10_000  # events that wait for one receiver
TOGETHER = 100  # votes in one delivery, when so many wait
ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = 1.0, 120.0  # seconds before the second attempt; doubled each time
PATIENCE = 10.0  # seconds for one attempt
KEPT = 100  # deliveries in the log
CLOSING = 2.0  # seconds that an attempt may still take when the server ends


@dataclass(frozen=True)
class Hook:
    """One receiver."""

    url: str
    secret: bytes
    events: tuple[str, ...]
    texts: bool = False

    @property
    def shown(self) -> str:
        """The address without what may be secret in it: user, password, query."""
        parts = urlsplit(self.url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def read_hooks(path: Path) -> list[Hook]:
    """The webhooks of a YAML file; a UserError says what is wrong with it."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--webhooks {path} can't be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, list):
        raise UserError(f"--webhooks {path} must hold a list with url, secret_env and events")
    return [_hook(entry, f"{path}, webhook {number}") for number, entry in enumerate(content, 1)]


def _hook(entry: Any, where: str) -> Hook:
    if not isinstance(entry, dict) or set(entry) - {"url", "secret_env", "events", "include"}:
        raise UserError(f"{where}: takes url, secret_env, events and include, got {entry!r}")
    parts = urlsplit(str(entry.get("url", "")))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{where}: url must begin with http:// or https://, got {entry.get('url')!r}")
    variable = str(entry.get("secret_env", ""))
    secret = os.environ.get(variable, "") if variable else ""
    if len(secret) < 16:
        raise UserError(
            f"{where}: secret_env names an environment variable with a secret of 16 characters or more; "
            f"{variable!r} holds {len(secret)}"
        )
    events, include = entry.get("events", list(EVENTS)), entry.get("include", [])
    if not isinstance(events, list) or not events or set(events) - set(EVENTS):
        raise UserError(f"{where}: events are {', '.join(EVENTS)}, got {events!r}")
    if include not in ([], ["texts"], "texts"):
        raise UserError(f"{where}: include takes texts, got {include!r}")
    return Hook(str(entry["url"]), secret.encode(), tuple(events), bool(include))


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over the timestamp, a dot and the body."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Deliveries(threading.Thread):
    """One receiver's queue, and the thread that empties it in order."""

    def __init__(self, hook: Hook, store: Store, first_wait: float = FIRST_WAIT) -> None:
        super().__init__(name=f"palate-webhook-{hook.shown}", daemon=True)
        self.hook, self._store, self._first_wait = hook, store, first_wait
        self._waiting: deque[Vote | dict[str, Any]] = deque()  # a vote, or what a batch came to
        self._wake, self._ending = threading.Condition(), False
        self._client = httpx.Client(timeout=PATIENCE, follow_redirects=False)
        self.log: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.delivered = self.given_up = self.dropped = 0

    def put(self, events: Sequence[Vote | dict[str, Any]]) -> None:
        """Queue events; never waits for the receiver."""
        with self._wake:
            self._waiting.extend(events)
            while len(self._waiting) > QUEUE:
                self._waiting.popleft()
                self.dropped += 1
            self._wake.notify()

    def close(self) -> None:
        """End after the attempt that is under way; what still waits is lost."""
        with self._wake:
            self._ending = True
            self._wake.notify()

    def state(self) -> dict[str, Any]:
        """How it stands with this receiver."""
        return {
            "url": self.hook.shown, "events": self.hook.events, "waiting": len(self._waiting),
            "delivered": self.delivered, "given_up": self.given_up, "dropped": self.dropped,
        }  # fmt: skip

    def run(self) -> None:
        """Until `close`: take what waits, send it, try again when it fails."""
        while (events := self._next()) is not None:
            try:
                self._send(*events)
            except Exception:  # noqa: BLE001 - the thread must live: the next event may be fine
                _log.exception("webhook %s: an event could not be sent", self.hook.shown)
                self.given_up += 1
        if self._waiting:
            _log.warning("webhook %s: %d events were not sent", self.hook.shown, len(self._waiting))
        self._client.close()

    def _next(self) -> tuple[str, list[Any]] | None:
        """The next event, or the next votes together; None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._ending or self._waiting)
            if self._ending:
                return None
            first = self._waiting.popleft()
            if not isinstance(first, Vote):
                return "batch_done", [first]
            votes = [first]
            while self._waiting and len(votes) < TOGETHER and isinstance(self._waiting[0], Vote):
                votes.append(self._waiting.popleft())  # type: ignore[arg-type]  # it was just looked at
            return "vote", votes

    def _send(self, event: str, events: list[Any]) -> None:
        content = {"votes": describe(self._store, events, self.hook.texts)} if event == "vote" else events[0]
        sent = {
            "id": new_id(),
            "event": event,
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            **content,
        }
        body = json.dumps(sent, separators=(",", ":")).encode()
        entry: dict[str, Any] = {
            "id": sent["id"], "url": self.hook.shown, "event": event, "begun_at": sent["timestamp"],
            "attempts": 0, "outcome": "under way", "answer": None,
        }  # fmt: skip
        self.log.append(entry)
        for attempt in range(1, ATTEMPTS + 1):
            entry["attempts"], entry["answer"] = attempt, self._attempt(sent["id"], event, body)
            if isinstance(entry["answer"], int) and entry["answer"] // 100 == 2:
                entry["outcome"] = "delivered"
                self.delivered += 1
                return
            if attempt < ATTEMPTS and not self._pause(attempt):
                entry["outcome"] = "not delivered: the server ended"
                return
        entry["outcome"] = "given up"
        self.given_up += 1
        _log.warning("webhook %s: gave up after %d attempts: %s", self.hook.shown, ATTEMPTS, entry["answer"])

    def _attempt(self, name: str, event: str, body: bytes) -> int | str:
        """The status of the answer, or why there was none."""
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json", "User-Agent": "palate-webhook", "Palate-Id": name,
            "Palate-Event": event, "Palate-Timestamp": timestamp,
            "Palate-Signature": signature(self.hook.secret, timestamp, body),
        }  # fmt: skip
        try:
            with self._client.stream("POST", self.hook.url, content=body, headers=headers) as answer:
                return answer.status_code  # what it says is not read
        except (httpx.HTTPError, OSError) as error:
            return type(error).__name__

    def _pause(self, attempt: int) -> bool:
        """Wait before the next attempt, each time twice as long, half of it at random; False when the server ends."""
        longest = min(LONGEST_WAIT, self._first_wait * 2 ** (attempt - 1))
        with self._wake:
            return not self._wake.wait_for(lambda: self._ending, longest * random.uniform(0.5, 1.0))


class Webhooks:
    """All receivers, and what they are told."""

    def __init__(
        self, store: Store, hooks: Sequence[Hook], batches: Batches, first_wait: float = FIRST_WAIT
    ) -> None:
        self._batches = batches
        self.deliveries = [Deliveries(hook, store, first_wait) for hook in hooks]
        self._on_vote = [one for one in self.deliveries if "vote" in one.hook.events]
        self._on_batch = [one for one in self.deliveries if "batch_done" in one.hook.events]
        for thread in self.deliveries:
            thread.start()
        if self._on_batch:
            batches.watch(self._batch_done)

    def votes(self, votes: Sequence[Vote]) -> None:
        """These votes are durable; called by the writer's thread, so nothing here takes time."""
        for one in self._on_vote:
            one.put(votes)
        if self._on_batch:
            self._batches.note([vote.assignment_id for vote in votes])

    def log(self) -> dict[str, Any]:
        """Receivers, and the latest deliveries to all of them, newest first."""
        entries = sorted(
            (dict(e) for one in self.deliveries for e in list(one.log)), key=lambda e: e["begun_at"]
        )
        return {"webhooks": [one.state() for one in self.deliveries], "deliveries": entries[::-1][:KEPT]}

    def close(self) -> None:
        """End all threads; what was not sent is lost."""
        self._batches.close()
        for one in self.deliveries:
            one.close()
        for one in self.deliveries:
            one.join(CLOSING)

    def _batch_done(self, batch: dict[str, Any]) -> None:
        for one in self._on_batch:
            one.put([batch])


def add_webhooks(app: FastAPI, store: Store, desk: Desk, config: LabelConfig) -> Webhooks:
    """Start the configured webhooks, and the route that shows their deliveries. `close` ends them."""
    hooks = read_hooks(config.webhooks) if config.webhooks else []
    webhooks = Webhooks(store, hooks, Batches(store, config.overlap, config.overlap_share))
    if hooks:
        desk.on_votes.append(webhooks.votes)

    @app.get("/api/v1/webhooks", tags=["operations"])
    def deliveries(request: Request) -> dict[str, Any]:
        """The webhooks and their latest deliveries; admins."""
        require(request, "admin")
        return webhooks.log()

    return webhooks
