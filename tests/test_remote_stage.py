"""Every command against a running `palate label`: on this machine by server.json, on another one by address and token.

Annotators go on voting meanwhile, and a run's frozen rows are exactly what the server had when it was asked.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from palate.config import UserError
from palate.data import address
from palate.data.demo import demonstrations, ideas, instruction
from palate.data.preferences import rankings
from palate.data.records import Run
from palate.data.remote import RemoteStore
from palate.data.store import Store
from palate.labeling.desk import Desk
from palate.project import Project
from palate.runs import content_hash
from tests.labeling.annotator_client import Page, add_people
from tests.labeling.conftest import ENV, Server, fill, launch
from tests.labeling.data_app import data_app, serving, token

__all__ = ["launch"]  # a fixture
QUIET = {**ENV, "OMP_NUM_THREADS": "1"}


def palate(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run a command as a user does, in the folder; returns what it printed."""
    command = [sys.executable, "-m", "palate", *arguments]
    done = subprocess.run(command, cwd=folder, env=env or QUIET, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def write_demo(folder: Path) -> tuple[Path, Path]:
    """(demonstrations, prompts to rank answers to) as files."""
    shown, asked = folder / "demonstrations.jsonl", folder / "ideas.jsonl"
    pairs = [{"prompt": prompt, "completion": answer} for prompt, answer in demonstrations(40, 0)]
    prompts = [{"prompt": instruction(idea), "split": "train"} for idea in ideas(90, 0)]
    prompts += [{"prompt": instruction(idea), "split": "test"} for idea in ideas(8, 1)]
    for path, rows in ((shown, pairs), (asked, prompts)):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return shown, asked


def test_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALATE_TOKEN", raising=False)
    monkeypatch.delenv("PALATE_STORE", raising=False)
    far = Project.create(tmp_path / "far", store="https://label.example.org/")
    assert far.server == "https://label.example.org" and not far.database.exists()
    with pytest.raises(UserError, match="there is no token for https://label.example.org"):
        far.store()
    with pytest.raises(
        UserError, match="the records of this project are at https://label.example.org: run this there"
    ):
        far.own_store()
    with pytest.raises(UserError, match="--store takes an address"):
        Project.create(tmp_path / "bad", store="label.example.org")
    assert not (tmp_path / "bad").exists()
    near = Project.create(tmp_path / "near")
    with near.store() as store:
        assert isinstance(store, Store)
    monkeypatch.setenv("PALATE_STORE", "http://127.0.0.1:1")
    monkeypatch.setenv("PALATE_TOKEN", "x")
    with Project.open(near.folder).store() as store:
        assert isinstance(store, RemoteStore)


def test_what_a_killed_server_left_is_not_believed(tmp_path: Path) -> None:
    project = Project.create(tmp_path)
    address.publish(
        project.folder, "http://127.0.0.1:1", "x"
    )  # its process lives, but it does not own the file
    with project.store() as store:
        assert isinstance(store, Store)


def test_two_machines_never_make_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.create(tmp_path / "label")
    with project.own_store() as store, Desk(store) as desk:
        app = data_app(store, project.folder, desk)
        monkeypatch.setenv("PALATE_TOKEN", token(app))
        store.put_run(Run("sft-3", "sft", created_at="2026"))
        with serving(app) as url:
            machines = [Project.create(tmp_path / name, store=url) for name in ("a", "b")]

            def work(machine: Project) -> None:
                for _ in range(4):
                    with machine.start("sft", {}):
                        pass

            threads = [threading.Thread(target=work, args=(machine,)) for machine in machines]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        made = [[run.id for run in machine.runs()] for machine in machines]
        assert [len(ids) for ids in made] == [4, 4]
        assert {*made[0], *made[1]} == {f"sft-{number}" for number in range(4, 12)}
        done = store.rows("SELECT id FROM run WHERE status = 'done'")
        assert {row["id"] for row in done} == {*made[0], *made[1]}


@pytest.mark.slow
def test_every_command_works_beside_a_running_server(tmp_path: Path, launch: Callable[..., Server]) -> None:
    project = Project.create(tmp_path / "p")
    server = launch(project.folder)
    assert (project.folder / "server.json").stat().st_mode & 0o777 == 0o600
    shown, asked = write_demo(tmp_path)
    small = ("--max-new-tokens", "8")
    here = project.folder
    palate(here, "import", str(shown), str(asked))
    palate(here, "sft", "--limit", "4", "--epochs", "1")
    assert "made 8 completions and 4 comparisons" in palate(here, "sample", "--limit", "4", "-k", "2", *small)
    assert "made:   4 votes" in palate(here, "simulate", "--overlap", "0")
    (progress,) = json.loads(palate(here, "stats", "--json", "--kind", "rule", "--section", "progress"))[
        "sections"
    ]
    answers = {panel["id"]: panel["answer"] for panel in progress["panels"]}
    assert answers["per-day"].startswith("4 votes on one day")
    palate(here, "reward", "--lora-rank", "2")
    palate(here, "dpo", "--lora-rank", "2", "--epochs", "1")
    palate(here, "eval", "--prompts", "2", "--samples", "1", *small)
    palate(here, "export", "votes.jsonl", "--what", "votes")
    assert len((here / "votes.jsonl").read_text().splitlines()) == 4
    assert "4 from simulate-1" in palate(here, "runs", "show", "reward-1")
    with project.store() as store:
        assert isinstance(store, RemoteStore)
        ids = {row["id"] for row in store.rows("SELECT id FROM run WHERE status = 'done'")}
    stages = ("import", "sft", "sample", "features", "simulate", "reward", "dpo", "eval")
    assert ids == {f"{stage}-1" for stage in stages}
    server.stop()
    assert not (here / "server.json").exists()
    with project.store() as store:
        assert isinstance(store, Store) and store.counts()["vote"] == 4


class Annotator(threading.Thread):
    """Votes about thrice a second until told to stop; knows when each vote was sent and acknowledged."""

    def __init__(self, url: str, token: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.page, self.over, self.failure = Page(url, token, seed), threading.Event(), ""
        self.times: list[tuple[str, float, float]] = []  # vote id, sent, acknowledged

    def run(self) -> None:
        while not self.over.wait(0.3):
            sent = time.monotonic()
            try:
                self.page.step()
            except Exception as error:  # noqa: BLE001 - told by the test, whatever it is
                self.failure = repr(error)
                return
            new = list(self.page.acknowledged)[len(self.times) :]
            self.times += [(vote, sent, time.monotonic()) for vote in new]


@contextmanager
def voting(url: str, tokens: list[str]) -> Iterator[list[Annotator]]:
    people = [Annotator(url, token, seed) for seed, token in enumerate(tokens)]
    for person in people:
        person.start()
    try:
        yield people
    finally:
        for person in people:
            person.over.set()
            person.join(30)
            person.page.http.close()


def votes_so_far(people: list[Annotator]) -> int:
    return sum(len(person.times) for person in people)


def wait_for_votes(people: list[Annotator], number: int) -> None:
    goal, end = votes_so_far(people) + number, time.monotonic() + 60
    while votes_so_far(people) < goal:
        assert time.monotonic() < end and not any(person.failure for person in people), people[0].failure
        time.sleep(0.05)


@pytest.mark.slow
def test_training_on_another_machine_while_people_vote(tmp_path: Path, launch: Callable[..., Server]) -> None:
    project = Project.create(tmp_path / "label")
    shown, asked = write_demo(tmp_path)
    palate(project.folder, "import", str(shown), str(asked))
    palate(project.folder, "sample", "--limit", "80", "-k", "3", "--max-new-tokens", "16")
    with project.own_store() as store:
        tokens = add_people(store, ["anna", "ben", "chris"])
        lead = add_people(store, ["lena"], "lead")["lena"]
        fill(store, n=400)  # so that nobody runs out of work
    server = launch(project.folder, "--overlap", "3")
    maps = Path(f"/proc/{server.process.pid}/maps")
    url = server.url.rstrip("/").replace("localhost", "127.0.0.1")

    far, home = tmp_path / "elsewhere", tmp_path / "home"
    home.mkdir()
    env = {**{k: v for k, v in QUIET.items() if not k.startswith(("HF_", "XDG_"))}, "HOME": str(home),
           "HF_HUB_OFFLINE": "1", "PALATE_TOKEN": lead}  # fmt: skip
    palate(home, "init", str(far), "--store", url, env=env)
    assert sorted(path.name for path in far.iterdir()) == ["palate.yaml", "runs"]
    with voting(url, list(tokens.values())) as people:
        wait_for_votes(people, 12)
        counts = [votes_so_far(people)]
        for command in (
            ("sft", "--limit", "8", "--epochs", "1"),
            ("sample", "--limit", "4", "-k", "2", "--max-new-tokens", "8"),
        ):
            palate(far, *command, env=env)
            counts.append(votes_so_far(people))
        started = time.monotonic()
        # votes that all is bad are counts in the frozen rows: which ones were there could not be told below
        palate(far, "reward", "--lora-rank", "2", "--annotators", "human", "--all-bad", "ignore", env=env)
        ended = time.monotonic()
        counts.append(votes_so_far(people))
        wait_for_votes(people, 6)
        registered = httpx.get(f"{url}/api/v1/runs", headers={"authorization": f"Bearer {lead}"}).json()[
            "runs"
        ]
    assert [person.failure for person in people] == [""] * 3
    assert all(before < after for before, after in pairwise(counts)), counts
    assert "torch" not in maps.read_text()

    # ids that the server has already are not used again: sample-1 was made there
    record = json.loads((far / "runs" / "reward-1" / "run.json").read_text())
    assert {"sft-1": "done", "sample-2": "done", "reward-1": "done"}.items() <= {
        run["id"]: run["status"] for run in registered
    }.items()
    assert (
        next(run for run in registered if run["id"] == "reward-1")["dataset_hash"] == record["dataset_hash"]
    )

    assert "note      sample-1 ran on another machine" in palate(far, "runs", "show", "reward-1", env=env)

    # the frozen rows are what the server had at one moment between `started` and `ended`
    frozen = pq.read_table(far / "runs" / "reward-1" / "data" / "train.parquet")
    assert content_hash(frozen) == record["files"]["train"]["sha256"]
    inside = {pair["vote_id"] for pairs in frozen["pairs"].to_pylist() for pair in pairs}
    assert 0 < len(inside) < votes_so_far(people)
    server.stop()
    with project.own_store() as store:
        assert store.value("SELECT count(*) FROM vote") == votes_so_far(people)
        decisive = {row["vote_id"] for row in store.rows("SELECT DISTINCT vote_id FROM preference")}
    for person in people:
        mine = [(vote, sent, saved) for vote, sent, saved in person.times if vote in decisive]
        assert {vote for vote, _, saved in mine if saved < started} <= inside
        assert not {vote for vote, sent, _ in mine if sent > ended} & inside
        kept = [vote in inside for vote, _, _ in mine]
        assert kept == sorted(kept, reverse=True)  # nothing later without everything earlier
    assert as_it_was(project, inside, tmp_path) == record["files"]["train"]["sha256"]


def as_it_was(project: Project, votes: set[str], folder: Path) -> str:
    """The hash of the rankings when these were the votes that decided something."""
    shutil.copy(project.database, folder / "then.duckdb")
    with Store(folder / "then.duckdb") as then:
        then.write(
            "DELETE FROM vote WHERE verdict IN ('ranked', 'tie') AND id NOT IN (SELECT unnest(?))",
            [list(votes)],
        )
        return content_hash(rankings(then, "human"))


def test_no_token_is_printed_or_kept(tmp_path: Path) -> None:
    env: dict[str, Any] = {**os.environ, **ENV, "PALATE_TOKEN": "palate_secret"}
    said = palate(tmp_path, "init", "far", "--store", "https://label.example.org", env=env)
    assert "its records are at https://label.example.org; runs and models stay here" in said
    assert "palate_secret" not in said + (tmp_path / "far" / "palate.yaml").read_text()
