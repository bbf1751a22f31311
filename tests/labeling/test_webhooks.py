"""Webhooks against a real receiver: signed, retried, given up visibly, and never in a vote's way."""

import hashlib
import hmac
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from palate.config import LabelConfig, UserError
from palate.data.records import Comparison, Verdict, Vote, new_id
from palate.data.store import Store
from palate.labeling import webhooks
from palate.labeling.ballots import Ballot
from palate.labeling.batches import Batches
from palate.labeling.desk import Desk, annotator
from palate.labeling.server import make_app
from palate.labeling.webhooks import ATTEMPTS, Hook, Webhooks, read_hooks
from palate.project import Project
from tests.labeling.conftest import enter, fill

SECRET = "a secret of some length"


@dataclass
class Receiver:
    """Somebody else's program: answers with `statuses` in turn, then with 204, and keeps what came."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.came]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(found.statuses.pop(0) if found.statuses else 204)
            self.send_header("location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/hook?key=private"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()


@dataclass
class Work:
    """A desk with an annotator, and webhooks on its votes."""

    desk: Desk
    hooks: Webhooks
    person: str

    def vote(self, n: int = 1, verdict: Verdict = "ranked") -> list[Vote]:
        votes = []
        for item in self.desk.next_items(self.person, random.Random(0), n):
            ranking = (("B",), ("A",)) if verdict == "ranked" else ()
            ballot = Ballot(
                verdict, ranking, rationale="my own words", vote_id=new_id(), assignment_id=item.assignment_id
            )
            votes += self.desk.cast_all(self.person, [ballot])
        return votes

    @property
    def log(self) -> list[dict[str, Any]]:
        return list(self.hooks.log()["deliveries"])


Start = Callable[..., Work]


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    """A desk on the store, with these webhooks; attempts follow each other quickly."""
    begun: list[Work] = []

    def work(*hooks: Hook, overlap: int = 1) -> Work:
        desk = Desk(store)
        found = Webhooks(store, hooks, Batches(store, overlap, 1.0), first_wait=0.01)
        desk.on_votes.append(found.votes)
        begun.append(Work(desk, found, annotator(store, "Anna Secretname").id))
        return begun[-1]

    yield work
    for one in begun:
        one.desk.close()
        one.hooks.close()


def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for a condition."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come true"
        time.sleep(0.005)


def hook(receiver: Receiver, *events: str, texts: bool = False) -> Hook:
    return Hook(receiver.url, SECRET.encode(), events or ("vote",), texts)


def test_a_vote_is_told_and_signed(store: Store, start: Start, receiver: Receiver) -> None:
    (comparison,) = fill(store, 1)
    work = start(hook(receiver))
    (vote,) = work.vote()
    until(lambda: receiver.came)
    headers, body = receiver.came[0]
    signed = headers["palate-timestamp"].encode() + b"." + body
    expected = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(headers["palate-signature"], expected)
    assert abs(time.time() - int(headers["palate-timestamp"])) < 60
    (told,) = receiver.told
    assert (told["event"], told["id"]) == ("vote", headers["palate-id"])
    (one,) = told["votes"]
    assert (one["id"], one["comparison"], one["verdict"]) == (vote.id, comparison.id, "ranked")
    assert one["ranking"] == [list(tier) for tier in vote.ranking]
    said = body.decode()
    for word in ("idea 0", "two words", "my own words", "Secretname", work.person, "secret-model"):
        assert word not in said


def test_texts_are_told_where_asked_for(store: Store, start: Start, receiver: Receiver) -> None:
    fill(store, 1)
    start(hook(receiver, texts=True)).vote()
    until(lambda: receiver.came)
    one = receiver.told[0]["votes"][0]
    assert one["messages"] == [{"role": "user", "content": "idea 0 of 2"}]
    assert sorted(one["answers"].values()) == ["one", "two words"]
    assert one["rationale"] == "my own words"


def test_a_failed_delivery_is_tried_again_under_the_same_id(
    store: Store, start: Start, receiver: Receiver
) -> None:
    fill(store, 1)
    receiver.statuses = [500, 302, 429]
    work = start(hook(receiver))
    work.vote()
    until(lambda: work.log and work.log[0]["outcome"] == "delivered")
    assert work.log[0]["attempts"] == 4
    assert len({headers["palate-id"] for headers, _ in receiver.came}) == 1
    assert len({body for _, body in receiver.came}) == 1
    assert work.log[0]["url"] == receiver.url.partition("?")[0]  # the key in the query is not shown


def test_giving_up_is_visible_and_the_next_event_goes_out(
    store: Store, start: Start, receiver: Receiver
) -> None:
    fill(store, 2)
    receiver.statuses = [503] * ATTEMPTS
    work = start(hook(receiver))
    work.vote()
    until(lambda: work.log and work.log[0]["outcome"] == "given up")
    assert (work.log[0]["answer"], work.log[0]["attempts"]) == (503, ATTEMPTS)
    work.vote()
    until(lambda: work.hooks.deliveries[0].delivered == 1)
    assert work.hooks.log()["webhooks"][0]["given_up"] == 1


def test_a_receiver_that_is_down_delays_no_vote_and_no_other_receiver(
    store: Store, start: Start, receiver: Receiver
) -> None:
    fill(store, 20)
    down = replace(hook(receiver), url="http://127.0.0.1:9/nobody-listens")
    work = start(down, hook(receiver))
    began = time.monotonic()
    votes = work.vote(20)
    assert time.monotonic() - began < 3
    until(lambda: sum(len(told["votes"]) for told in receiver.told) == 20)
    assert [one["id"] for told in receiver.told for one in told["votes"]] == [vote.id for vote in votes]
    until(lambda: any(entry["answer"] == "ConnectError" for entry in work.log))


def test_the_queue_is_bounded(
    store: Store, start: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "QUEUE", 5)
    work = start(hook(receiver))
    waiting = work.hooks.deliveries[0]
    waiting.close()
    waiting.join()
    waiting.put([{"run": str(i)} for i in range(8)])
    assert (waiting.state()["waiting"], waiting.state()["dropped"]) == (5, 3)


def test_a_batch_is_told_once_when_all_of_it_is_answered(
    store: Store, start: Start, receiver: Receiver
) -> None:
    made = fill(store, 3)
    store.write("UPDATE comparison SET run_id = 'sample-1' WHERE id IN (?, ?)", [made[0].id, made[1].id])
    work = start(hook(receiver, "batch_done"))
    work.vote(3, "skip")  # no answers
    assert not receiver.came
    again = annotator(store, "Ben").id
    work.person = again
    work.vote(3)
    until(lambda: receiver.came)
    assert receiver.told[0]["event"] == "batch_done"
    assert {key: receiver.told[0][key] for key in ("run", "comparisons", "answers")} == {
        "run": "sample-1", "comparisons": 2, "answers": 2,
    }  # fmt: skip
    prompt = made[0]
    store.add_comparisons(
        [Comparison(prompt.prompt_id, prompt.completion_ids, purpose="random", run_id="other")]
    )
    work.desk.refresh()
    work.vote(1)
    until(lambda: len(receiver.came) == 2)
    assert receiver.told[1]["run"] == "other"


def test_a_batch_awaits_the_overlap_that_was_set(store: Store, start: Start, receiver: Receiver) -> None:
    fill(store, 1)
    store.write("UPDATE comparison SET run_id = 'sample-1'")
    found = Batches(store, 2, 1.0)
    told: list[Any] = []
    found.watch(told.append)
    work = start(hook(receiver))
    (vote,) = work.vote()
    found.note([vote.assignment_id])
    until(lambda: not found._voted)
    assert found._left(["sample-1"]) == {"sample-1": (1, 1, 1)}
    found.close()
    assert not told


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("no list", "must hold a list"),
        ([{"url": "ftp://x", "secret_env": "HOOK"}], "must begin with http"),
        ([{"url": "http://x", "secret_env": "UNSET"}], "16 characters or more"),
        ([{"url": "http://x", "secret_env": "HOOK", "events": ["click"]}], "events are vote, batch_done"),
        ([{"url": "http://x", "secret_env": "HOOK", "header": 1}], "takes url, secret_env"),
        ([{"url": "http://x", "secret_env": "HOOK", "include": ["names"]}], "include takes texts"),
    ],
)
def test_a_wrong_file_is_explained_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Any, why: str
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    path = tmp_path / "webhooks.yaml"
    path.write_text(yaml.safe_dump(entry))
    with pytest.raises(UserError, match=why) as error:
        read_hooks(path)
    assert SECRET not in str(error.value) and "\n" not in str(error.value)


def test_the_server_starts_them_and_shows_deliveries_to_admins(
    project: Project, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    path = tmp_path / "webhooks.yaml"
    path.write_text(yaml.safe_dump([{"url": receiver.url, "secret_env": "HOOK", "events": ["vote"]}]))
    with project.own_store() as store:
        fill(store, 1)
        app = make_app(store, project, LabelConfig(project.folder, browser=False, webhooks=path))
        client = TestClient(app, base_url="http://localhost")
        enter(client, "anna")
        item = client.post("/api/v1/next", json={"have": []}).json()["items"][0]
        ballot = {"vote_id": new_id(), "assignment": item["assignment"], "verdict": "tie"}
        assert client.post("/api/v1/votes", json=ballot).status_code == 200
        until(lambda: receiver.came)
        assert receiver.told[0]["votes"][0]["id"] == ballot["vote_id"]
        assert client.get("/api/v1/webhooks").status_code == 403
        enter(client, "the admin", "admin")
        until(lambda: client.get("/api/v1/webhooks").json()["webhooks"][0]["delivered"] == 1)
        shown = client.get("/api/v1/webhooks").text
        assert SECRET not in shown and "private" not in shown
