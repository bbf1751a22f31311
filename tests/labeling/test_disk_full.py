"""A full disk: votes are refused with a clear message, none that was acknowledged is lost, and when there is space again
the same server goes on, without a restart.

Where this process may mount file systems the disk is a small tmpfs, really full. Elsewhere the size that files of the
server may have is limited, which fails in the same places with another word for it.
"""

import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from palate.data import database, journal
from palate.data.store import Store
from palate.project import Project
from tests.labeling.annotator_client import Page, Refused, add_people
from tests.labeling.conftest import Server, fill

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs or prlimit")]
NAMES = [f"annotator {i}" for i in range(4)]
MEGABYTE = 2**20


class Tmpfs:
    """A file system of 64 MB in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
        self.filler = folder / "filler"

    def fill(self, _: int, left: int) -> None:
        """Leave so many bytes."""
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
        with self.filler.open("ab") as file:
            file.write(bytes(max(0, free - left)))

    def free(self, _: int) -> None:
        """Make room."""
        self.filler.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


class Limit:
    """No file of the server may grow beyond a size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int, left: int) -> None:
        """The log and the journal may grow by so many bytes."""
        grows = [database.wal(self.folder / "project" / "palate.duckdb"), *self.folder.rglob("*.jsonl")]
        size = min(file.stat().st_size for file in grows if file.exists() and file.stat().st_size)
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + left, hard))

    def free(self, pid: int) -> None:
        """No limit."""
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def close(self) -> None:
        """Nothing is left behind."""


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    if os.geteuid() != 0:
        return False
    folder = Path("/mnt")
    tried = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if tried.returncode == 0:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    return tried.returncode == 0


@pytest.fixture(params=["limit", "tmpfs"] if can_mount() else ["limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tmpfs | Limit]:
    made = (Tmpfs if request.param == "tmpfs" else Limit)(tmp_path)
    yield made
    made.close()


def votes_until_refused(page: Page) -> Refused:
    """Vote on until the server refuses to store."""
    for _ in range(3000):
        try:
            if not page.items:
                page.ask()
            page.send(page.unsent or page.ballot(page.items[0]))
        except Refused as refusal:
            return refusal
    raise AssertionError("a full disk took every vote")


def test_a_full_disk_refuses_and_loses_nothing(disk: Tmpfs | Limit, serve: Callable[..., Server]) -> None:
    project = Project.create(disk.folder / "project")
    with Store(project.database) as store:
        fill(store, n=1500, overlap=len(NAMES))
        tokens = add_people(store, NAMES)
    server = serve(project.folder)
    pid = server.process.pid
    pages = [Page(server.url, tokens[name], seed) for seed, name in enumerate(NAMES)]
    for left in (60_000, 20_000, 200_000):
        for page in pages:
            for _ in range(20):
                assert page.step() == "voted"
        disk.fill(pid, left)
        for page in pages:
            refusal = votes_until_refused(page)
            assert (refusal.status, refusal.code) == (503, "disk_full"), str(refusal)
            assert "disk is full" in refusal.message
            # the second: the commit found room and the journal did not, so the vote stands unconfirmed
            assert any(words in refusal.message for words in ("nothing was stored", "is not safe yet"))
        for page in pages:  # it stays so, and reading goes on
            with pytest.raises(Refused, match="503 disk_full"):
                page.send(page.unsent or page.ballot(page.items[0]))
            assert page.http.get("/api/v1/votes/mine").status_code == 200
            with suppress(Refused):  # a second tab: an item whose lease can't be stored is nobody's
                page.post("next", {"have": []})
        assert httpx.get(f"{server.url}healthz").status_code == 200
        disk.free(pid)
        for page in pages:  # the very ballots that were refused
            refused = page.unsent
            assert refused is not None
            assert page.step() == "voted"
            assert refused["vote_id"] in page.acknowledged
    assert server.process.poll() is None
    disk.fill(pid, 30_000)
    for page in pages:
        votes_until_refused(page)
    server.stop(signal.SIGKILL)
    disk.free(pid) if isinstance(disk, Tmpfs) else None
    again = serve(project.folder)
    for page in pages:
        page.move(again.url)
        assert page.step() == "voted"
    again.stop()
    with Store(project.database) as store:
        stored = Counter(row["id"] for row in store.rows("SELECT id FROM vote"))
        current = store.value("SELECT count(*) FROM current_vote")
    written = Counter(
        entry["id"] for entry in journal.read(journal.folder_of(project.database)) if entry["kind"] == "vote"
    )
    acknowledged = {vote for page in pages for vote in page.acknowledged}
    assert acknowledged <= stored.keys()
    assert stored == written
    assert set(stored.values()) == {1}
    assert current == len(stored)  # each on an item that is stored, too
    for page in pages:
        page.http.close()
