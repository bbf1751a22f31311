"""The server is killed a hundred times under load; no acknowledged vote is ever lost, doubled or asked for again.

Ten of the starts are `palate label` as its user starts it, the other ninety are forks (forks.py), which start sooner
and run the very same server: pages, API, writer, journal, backups. In those, checkpoints and backups come every
moment, so that kills fall into them too.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from palate.data import database, journal
from palate.data.remote import RemoteStore
from palate.data.store import Store
from palate.project import Project
from tests.labeling.annotator_client import Page, add_people
from tests.labeling.conftest import Server, fill
from tests.labeling.forks import Forked, Forks

pytestmark = pytest.mark.slow
KILLS, EVERY_TENTH, CLIENTS = 100, 10, 20
NAMES = [f"annotator {i}" for i in range(CLIENTS)]

BUSY = {
    "palate.data.database.WAL_BYTES": 100_000,
    "palate.labeling.backup_routes.TICK": 0.15,
    "palate.labeling.backup_routes.WORTH_MOVING": 1,
}


def begin(forks: Forks, folder: Path) -> Forked:
    """A server that is starting, and will be busy with checkpoints and backups."""
    flags = ["--project", str(folder), "--port", "0", "--no-browser", "--backup-minutes", "0.005"]
    return forks.palate(["label", *flags], BUSY)


def address(process: Forked) -> tuple[str, list[str]]:
    """Where it listens, and what it said before."""
    said = []
    for line in process.stdout:
        if line.startswith("open:"):
            return str(httpx.URL(line.split()[1]).join("/")), said
        said.append(line)
    raise AssertionError(f"the server did not start, status {process.wait()}: {said}")


class Annotator(Page):
    """An annotator who votes as fast as the server answers, until it is gone."""

    def _take(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        answered = set(self.acknowledged.values())
        again = [item["assignment"] for item in answer["items"] if item["assignment"] in answered]
        assert not again, f"shown again after it was answered: {again}"
        return super()._take(answer)

    def live(self, until: threading.Event) -> None:
        try:
            while not until.is_set():
                if self.step() in ("wait", "idle"):
                    until.wait(0.05)
        except httpx.TransportError:  # what was on its way is sent again when the server is back
            return


def journaled(folder: Path, known: dict[Path, Counter[str]]) -> Counter[str]:
    """How often each vote stands in the journal. A file does not change once a later one has been begun."""
    counts = Counter[str]()
    files = journal.files(folder)
    for path in files:
        if path not in known:
            votes = (raw for raw in journal.lines_of(path) if b'"kind":"vote"' in raw[:40])
            found = Counter(journal.parse(raw)["id"] for raw in votes)
            if path != files[-1]:
                known[path] = found
            counts.update(found)
        else:
            counts.update(known[path])
    return counts


def is_whole(
    url: str, token: str, folder: Path, pages: list[Annotator], known: dict[Path, Counter[str]]
) -> int:
    """Every acknowledged vote once in database and journal, which hold the same; returns how many there are."""
    acknowledged = {vote for page in pages for vote in page.acknowledged}
    with RemoteStore(url, token) as store:
        stored = Counter(row["id"] for row in store.rows("SELECT id FROM vote"))
    written = journaled(folder, known)
    assert not acknowledged - stored.keys(), "acknowledged votes that the database lacks"
    assert not acknowledged - written.keys(), "acknowledged votes that the journal lacks"
    assert set(stored.values()) <= {1}
    assert set(written.values()) <= {1}
    assert stored.keys() == written.keys()
    return len(stored)


def test_a_hundred_kills(
    project: Project, forks: Forks, launch: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(project.database) as store:
        fill(store, n=1500, overlap=CLIENTS)
        tokens = add_people(store, NAMES)
        lead = add_people(store, ["the lead"], "lead")["the lead"]
    pages = [Annotator("http://nowhere", tokens[name], seed) for seed, name in enumerate(NAMES)]
    folder = journal.folder_of(project.database)
    rng = random.Random(0)
    known: dict[Path, Counter[str]] = {}
    starts: dict[str, list[float]] = {"command": [], "fork": []}
    came_back: list[str] = []
    checked = early = 0
    begun = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as threads, ExitStack() as running:
        for number in range(KILLS + 1):
            start = time.monotonic()
            if number % EVERY_TENTH == EVERY_TENTH - 1:
                server = launch(project.folder)
                url, process = server.url, server.process
                starts["command"].append(time.monotonic() - start)
            else:
                process = begin(forks, project.folder)
                running.enter_context(process.stdout)
                running.callback(process.kill)
                if number % EVERY_TENTH == 4:  # killed while it starts
                    time.sleep(rng.uniform(0, 0.8))
                    process.kill()
                    process.wait()
                    early += 1
                    continue
                url, said = address(process)
                starts["fork"].append(time.monotonic() - start)
                came_back += [line for line in said if line.startswith(("journal:", "recovering:"))]
            checked = is_whole(url, lead, folder, pages, known)
            if number == KILLS:
                process.kill()
                break
            done = threading.Event()
            for page in pages:
                page.move(url)
            living = [threads.submit(page.live, done) for page in pages]
            enough = sum(len(page.acknowledged) for page in pages) + rng.randrange(80)
            patience = time.monotonic() + 5
            while sum(len(page.acknowledged) for page in pages) < enough and time.monotonic() < patience:
                time.sleep(0.002)
            process.kill()
            done.set()
            for one in living:
                one.result()
            process.wait()
    acknowledged = sum(len(page.acknowledged) for page in pages)
    middle = {kind: sorted(times)[len(times) // 2] for kind, times in starts.items()}
    with capsys.disabled():
        print(
            f"\n{KILLS} kills ({early} while starting) in {time.monotonic() - begun:.0f} s: {acknowledged} votes "
            f"acknowledged, {checked} stored, none lost; median start {middle['command']:.1f} s, "
            f"forked {middle['fork']:.1f} s; {len(came_back)} starts had something to put right"
        )
        print("".join(came_back[:5]), end="")
    assert acknowledged > 1000
    assert (project.folder / "backups").is_dir()
    with project.store() as store:  # waits until the killed process has let go
        assert (
            store.value(
                "SELECT count(*) FROM (SELECT assignment_id FROM vote GROUP BY ALL HAVING count(*) > 1)"
            )
            == 0
        )
    assert json.loads(next((project.folder / "backups").glob("*.json")).read_text())["sums"]
    assert database.missing(project.database) is None
