"""Our side of `labeling_load.py`: `palate label` on a project of its own, and what the ranking page sends.

The page's outbox sends a ballot and shows the next item from the answer; the item after that has come ahead. While
it is open it also sends a heartbeat once a minute. The sessions are made beforehand, as a login makes them, because
scrypt for a hundred people says nothing about voting.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from labeling_load_client import Connection, Failed

ROOT = Path(__file__).parents[1]
BEAT = 60.0  # seconds between two heartbeats of a page


def make_project(folder: Path, items: Sequence[tuple[str, str, str]], overlap: int) -> Path:
    """A project with one comparison per item and a session for each of `overlap` annotators; returns its folder."""
    sys.path.insert(0, str(ROOT / "src"))
    from palate.data.records import Comparison, Completion, Prompt
    from palate.labeling.login import cookie_name
    from palate.labeling.people import People
    from palate.project import Project

    project = Project.create(folder)
    prompts = [Prompt(({"role": "user", "content": prompt},)) for prompt, _, _ in items]
    completions = [
        tuple(Completion(prompt.id, text, model=f"model-{i}") for i, text in enumerate(texts))
        for prompt, (_, *texts) in zip(prompts, items, strict=True)
    ]
    with project.own_store() as store:
        store.add_prompts(prompts)
        store.add_completions([one for pair in completions for one in pair])
        store.add_comparisons(
            [Comparison(a.prompt_id, (a.id, b.id), overlap=overlap) for a, b in completions]
        )
        people = People(store, cookie_name(project.folder))
        secrets = [people.open_session(people.create(f"annotator {i}").id) for i in range(overlap)]
    (folder / "sessions.json").write_text(json.dumps([cookie_name(project.folder), secrets]))
    return folder


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """`palate label` on a free port; yields the address."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [
        sys.executable,
        "-m",
        "palate",
        "label",
        "--project",
        str(folder),
        "--no-browser",
        "--port",
        "0",
    ]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield _wait(process, folder / "server.log")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


async def log_in_all(url: str, project: Path, n: int) -> list[Connection]:
    """`n` annotators with their pages open."""
    people = []
    name, secrets = json.loads((project / "sessions.json").read_text())
    for secret in secrets[:n]:
        person = Connection(url)
        person.cookies[name] = secret
        person.state["beat_at"] = time.monotonic() + random.uniform(0, BEAT)
        person.state["items"] = {}
        for path in ("me", "guidelines"):
            await _json(person, "GET", path)
        _show(person, await _json(person, "POST", "next", {"have": []}))
        people.append(person)
    return people


async def vote(person: Connection) -> None:
    """Send a ballot; the next item is on screen when this returns."""
    items = person.state["items"]
    assignment = person.state["current"]
    if time.monotonic() > person.state["beat_at"]:
        person.state["beat_at"] += BEAT
        await _json(person, "POST", "heartbeat", {"assignments": list(items)})
    ballot = {
        "vote_id": str(uuid.uuid4()), "assignment": assignment, "verdict": "ranked", "ranking": [["B"], ["A"]],
        "strength": 2, "reason": None, "flags": [], "criteria": {}, "rationale": None, "edit": None,
        "seconds_visible": 4.2, "seconds_active": 3.9, "guideline_version": None,
        "have": [name for name in items if name != assignment],
    }  # fmt: skip
    answer = await _json(person, "POST", "votes", ballot)
    del items[assignment]
    if answer["saved"] != ballot["vote_id"]:
        raise Failed(f"saved {answer['saved']}, not {ballot['vote_id']}")
    _show(person, answer)


def _show(person: Connection, answer: "dict[str, object]") -> None:
    known, items = person.state["items"], answer["items"]
    assert isinstance(items, list)
    person.state["items"] = {
        one["assignment"]: one if "answers" in one else known[one["assignment"]] for one in items
    }
    if not items:
        raise Failed("no item left")
    person.state["current"] = items[0]["assignment"]


async def _json(person: Connection, method: str, path: str, body: object = None) -> "dict[str, object]":
    sent = json.dumps(body).encode() if body is not None else b""
    status, answer = await person.request(method, f"/api/v1/{path}", sent)
    if status != 200:
        raise Failed(f"{method} {path}: {status} {answer[:300]!r}")
    found: dict[str, object] = json.loads(answer)
    return found


def _wait(process: "subprocess.Popen[str]", log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://[^/\s]+", line):
            break
    else:
        raise SystemExit(f"palate label did not start:\n{log.read_text()[-3000:]}")
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{found.group(0)}/healthz", timeout=5)
            return found.group(0).replace("localhost", "127.0.0.1")
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"palate label did not answer:\n{log.read_text()[-3000:]}")
