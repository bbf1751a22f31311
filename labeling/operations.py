"""What machines ask a running server: is it alive, can it store votes, how does it do.

`/healthz` says that the process answers. `/readyz` says whether a vote sent now would be stored, or why not.
`/metrics` is in Prometheus' text format, for callers on this machine and for tokens of leads; it counts votes by
verdict and by kind of annotator, never by person. docs/operations.md explains every figure.
"""

import os
import re
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from palate.data import backup, journal
from palate.data.store import Store, now
from palate.labeling.api import openapi
from palate.labeling.desk import Desk
from palate.labeling.login import refuse
from palate.labeling.throttle import plain

FREE_BYTES = 100 * 2**20  # below this the server does not call itself ready
FRESH = 10.0  # seconds for which the figures from the database are kept
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
LOOPBACK = ("127.0.0.1", "::1")
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")
# what Gradio and the pages load: one name each, or the list of names would never end
OUTSIDE: dict[int | str, dict[str, Any]] = {
    403: {"description": "Neither this machine nor a token of a lead", "content": {"application/json": {}}}
}
PREFIXES = ("/gradio_api/", "/statistics/", "/assets/", "/static/")


def add_operations(app: FastAPI, store: Store, desk: Desk) -> CollectorRegistry:
    """The three routes, called before anything is mounted at the root; returns what `add_stopwatch` takes."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Figures(store, desk))

    @app.get("/healthz", tags=["operations"])
    async def healthz() -> JSONResponse:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", tags=["operations"], responses={503: {"description": "It is not"}})
    def readyz() -> JSONResponse:
        """Whether votes are stored now; 503 with the reasons when not."""
        reasons = not_ready(store, desk)
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse, responses=OUTSIDE)
    def metrics(request: Request) -> Response:
        """Figures for Prometheus: from this machine, or with a lead's token."""
        state = request.scope["state"]
        person = state.get("person")
        lead = person is not None and person.via == "token" and person.may("lead")
        if not lead and not state.get("direct"):
            return refuse(403, "forbidden", "metrics are for this machine, or for a token of a lead")
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return registry


def add_stopwatch(app: FastAPI, registry: CollectorRegistry, root: str) -> None:
    """The layer that measures requests; added last, because it is the outermost."""

    def templates() -> list[str]:
        own = [route.path for route in app.routes if isinstance(route, Route) and ":path}" not in route.path]
        return [*own, *openapi(app)["paths"]]

    app.add_middleware(Stopwatch, templates=templates, registry=registry, root=root)


def not_ready(store: Store, desk: Desk) -> list[str]:
    """Why a vote would not be stored now; empty when it would."""
    reasons = []
    try:
        store.value("SELECT 1")
        if not desk.writes:
            reasons.append("votes are not written any more: start the server again")
        if desk.counts()["journal_lag"]:
            reasons.append("the journal did not take the latest votes")
    except duckdb.Error:
        reasons.append("the database does not answer")
    if not os.access(journal.folder_of(store.path), os.W_OK):
        reasons.append("the journal can't be written")
    if shutil.disk_usage(store.path.parent).free < FREE_BYTES:
        reasons.append(f"less than {FREE_BYTES // 2**20} MB are free on the disk")
    return reasons


class Stopwatch:
    """How long requests take until their response begins, by route, method and status; plain ASGI, a few microseconds.

    Also notes whether a request comes straight from this machine: what a proxy passes on does not.
    """

    def __init__(
        self, app: ASGIApp, templates: Callable[[], Iterable[str]], registry: CollectorRegistry, root: str
    ) -> None:
        self.app, self._templates, self._root = app, templates, root
        self._seconds = Histogram(
            "palate_request_seconds",
            "Time until the response to a request begins",
            ("route", "method", "status"),
            buckets=BUCKETS,
            registry=registry,
        )
        self._known: dict[tuple[str, str, int], Any] = {}
        self._names: dict[str, str] = {}  # route by path, where the two are the same
        self._patterns: list[tuple[re.Pattern[str], str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                self._learn()  # when every route is there, so that the first request does not wait for it
            await self.app(scope, receive, send)
            return
        client = scope.get("client")
        direct = client is not None and plain(client[0]) in LOOPBACK
        if direct and any(name in FORWARDED for name, _ in scope["headers"]):
            direct = False
        scope["state"] = {**scope.get("state", {}), "direct": direct}
        began, path = time.perf_counter(), scope["path"]
        method = scope["method"] if scope["method"] in METHODS else "other"

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(method, path, message["status"], time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, answer)

    def _note(self, method: str, path: str, status: int, seconds: float) -> None:
        name = self._names.get(path) or self._name(path)
        key = (name, method, status)
        series = self._known.get(key)
        if series is None:
            series = self._known[key] = self._seconds.labels(name, method, str(status))
        series.observe(seconds)

    def _learn(self) -> None:
        for template in self._templates():
            if "{" not in template:
                self._names[self._root + template] = template
            else:
                expression = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(self._root + template))
                self._patterns.append((re.compile(expression), template))

    def _name(self, path: str) -> str:
        """The route's template for a path; few names, whatever is asked for."""
        if not self._names:
            self._learn()
        short = path.removeprefix(self._root)
        for prefix in PREFIXES:
            if short.startswith(prefix):
                return f"{prefix}*"
        for pattern, template in self._patterns:
            if pattern.fullmatch(path):
                return template
        return self._names.get(path) or ("/" if short == "/" else "other")


class Figures:
    """What is read when Prometheus asks; the database at most every ten seconds."""

    def __init__(self, store: Store, desk: Desk) -> None:
        self._store, self._desk = store, desk
        self._lock = threading.Lock()
        self._read_at = -FRESH
        self._rows: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """All figures but those of requests and of the process."""
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH:
                try:
                    self._rows = [*_votes(self._store), *_work(self._store, self._desk)]
                except duckdb.Error:
                    self._rows = []  # no figures rather than old ones
                self._read_at = time.monotonic()
            rows = self._rows
        yield from rows
        yield from _timings(self._desk)
        yield from _choosing(self._desk)
        yield from _files(self._store.path)


def _votes(store: Store) -> Iterator[Metric]:
    votes = CounterMetricFamily(
        "palate_votes", "Votes stored, superseded ones too", labels=("verdict", "kind")
    )
    for row in store.rows(
        "SELECT v.verdict, n.kind, count(*) AS n FROM vote v JOIN assignment a ON a.id = v.assignment_id "
        "JOIN annotator n ON n.id = a.annotator_id GROUP BY ALL ORDER BY ALL"
    ):
        votes.add_metric((row["verdict"], row["kind"]), row["n"])
    yield votes


def _work(store: Store, desk: Desk) -> Iterator[Metric]:
    counts = desk.counts()
    answered = store.value("SELECT count(DISTINCT comparison_id) FROM current_vote WHERE verdict <> 'skip'")
    comparisons = GaugeMetricFamily("palate_comparisons", "Comparisons by state", labels=("state",))
    for state, value in (("open", counts["waiting"]), ("leased", counts["leased"]), ("answered", answered)):
        comparisons.add_metric((state,), value)
    yield comparisons
    withheld = GaugeMetricFamily(
        "palate_withheld", "Comparisons that are not shown, by reason", labels=("reason",)
    )
    for name, value in counts.items():
        if name.startswith("withheld_"):
            withheld.add_metric((name.removeprefix("withheld_"),), value)
    yield withheld
    sql = "SELECT count(*) FROM login_session WHERE expires_at > ?"
    yield GaugeMetricFamily("palate_sessions", "Sessions that have not expired", store.value(sql, [now()]))
    sql = "SELECT count(*) FROM account WHERE last_seen > ?::TIMESTAMP - INTERVAL 15 MINUTE"
    yield GaugeMetricFamily(
        "palate_people_active", "People seen within 15 minutes", store.value(sql, [now()])
    )


def _timings(desk: Desk) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "palate_journal_lag", "Votes that the journal lacks", desk.counts()["journal_lag"]
    )
    seconds = sorted(desk.commit_seconds())
    if len(seconds) > 1:
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        commits = GaugeMetricFamily(
            "palate_commit_seconds", "Time of the latest commits with the journal", labels=("quantile",)
        )
        for share in (50, 95, 99):
            commits.add_metric((f"{share / 100}",), cuts[share - 1])
        yield commits


def _choosing(desk: Desk) -> Iterator[Metric]:
    if desk.selector is None:
        return
    state = desk.selector.state()
    yield GaugeMetricFamily(
        "palate_selection_on", "1 while comparisons are chosen, 0 by chance", state["choosing"]
    )
    yield GaugeMetricFamily(
        "palate_selection_random_share", "Share of comparisons given by chance", state["share_by_chance"]
    )
    taken = sorted(desk.selector.milliseconds)
    if len(taken) > 1:
        cuts = statistics.quantiles(taken, n=100, method="inclusive")
        seconds = GaugeMetricFamily(
            "palate_selection_seconds", "Time of learning and ranking anew", labels=("quantile",)
        )
        for share in (50, 95, 99):
            seconds.add_metric((f"{share / 100}",), cuts[share - 1] / 1000)
        yield seconds


def _files(database: Path) -> Iterator[Metric]:
    folder = database.parent
    sizes = (
        ("palate_database_bytes", "Size of the database file", [database]),
        ("palate_wal_bytes", "Size of the write-ahead log", [database.with_name(database.name + ".wal")]),
        ("palate_journal_bytes", "Size of the journal", journal.folder_of(database).glob("*")),
    )
    for name, text, paths in sizes:
        yield GaugeMetricFamily(name, text, sum(_size(path) for path in paths))
    yield GaugeMetricFamily(
        "palate_disk_free_bytes", "Free space where the project is", shutil.disk_usage(folder).free
    )
    backups = [path.stat().st_mtime for path in backup.folder_of(database).glob("*.duckdb")]
    if backups:
        age = time.time() - max(backups)
        yield GaugeMetricFamily("palate_backup_age_seconds", "Time since the latest backup", age)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # there is none now
