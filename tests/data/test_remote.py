"""The store behind a server over real HTTP: the same answers as the store itself, and errors in one line."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI

from palate.config import UserError
from palate.data import address, features
from palate.data.columns import record_table
from palate.data.export import export_preferences, export_votes
from palate.data.preferences import origins, rankings
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Run, Score, Vote
from palate.data.remote import RemoteStore, RunTaken
from palate.data.store import Store
from palate.labeling.desk import Desk
from tests.labeling.conftest import fill
from tests.labeling.data_app import data_app, serving, token

QUERIES = [
    ("SELECT * FROM prompt ORDER BY id", []),
    ("SELECT * FROM vote ORDER BY id", []),
    ("SELECT * FROM assignment ORDER BY id", []),
    ("SELECT sum(length(text)) AS total, avg(length(text)) AS mean, count(*) AS n FROM completion", []),
    ("SELECT id, created_at FROM completion WHERE prompt_id = ? ORDER BY id", ["nobody"]),
    ("SELECT run_id FROM completion WHERE id IN (SELECT unnest(?)) AND ? IS NULL", [["a", "b"], None]),
    ("SELECT 1 AS a, NULL AS b, [1, 2] AS c, {'x': 'y'} AS d, true AS e, 0.5::DOUBLE AS f", []),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        for row in fill(opened, n=3):
            who = Annotator("r", "rule")
            shown = Assignment(row.id, who.id, row.completion_ids, "done")
            ranking = tuple((one,) for one in row.completion_ids)
            opened.add_all(
                [who], [shown], [Vote(shown.id, "ranked", ranking, run_id="simulate-1", strength=2)]
            )
        yield opened


@pytest.fixture
def app(store: Store, tmp_path: Path) -> Iterator[FastAPI]:
    with Desk(store) as desk:
        yield data_app(store, tmp_path, desk)


@pytest.fixture
def remote(app: FastAPI) -> Iterator[RemoteStore]:
    with serving(app) as url, RemoteStore(url, token(app), pauses=()) as connected:
        yield connected


def test_reading_is_the_same(store: Store, remote: RemoteStore) -> None:
    for sql, params in QUERIES:
        assert remote.rows(sql, params) == store.rows(sql, params), sql
        assert remote.table(sql, params).equals(store.table(sql, params)), sql
        assert remote.value(sql, params) == store.value(sql, params), sql
        mine, theirs = remote.rows(sql, params), store.rows(sql, params)
        assert [list(map(type, row.values())) for row in mine] == [
            list(map(type, row.values())) for row in theirs
        ]
    assert remote.counts() == store.counts()
    assert rankings(remote).equals(rankings(store))
    assert origins(remote, rankings(remote)) == ("simulate-1",)


def test_adding_is_the_same_and_twice_is_once(store: Store, remote: RemoteStore, tmp_path: Path) -> None:
    prompts = [
        Prompt(({"role": "user", "content": f"Größe {i} “x” 🦊"},), "api", tags=("a",)) for i in range(5)
    ]
    texts = [[Completion(prompt.id, text) for text in ("one", "two")] for prompt in prompts]
    pairs = [
        Comparison(prompt.id, tuple(c.id for c in row)) for prompt, row in zip(prompts, texts, strict=True)
    ]
    assert remote.add_prompts(prompts[:2]) == 2
    (tmp_path / "staged [1]").mkdir()
    for number, part in enumerate((prompts[:3], prompts[3:])):
        pq.write_table(record_table(part), tmp_path / "staged [1]" / f"prompt-{number}.parquet")
    staged = tmp_path / "staged [[]1]" / "prompt-*.parquet"
    rows = record_table([one for row in texts for one in row])
    assert remote.add_tables({"prompt": staged, "completion": rows}) == {"prompt": 3, "completion": 10}
    assert remote.add_all(texts[0], pairs, []) == [0, 5, 0]
    assert remote.add([Score(texts[0][0].id, "reward-1", 0.5)]) == 1
    one, other = texts[0]
    vectors = np.array([[0.5, -2.0], [1.0, 3.0]], dtype=np.float32)
    assert features.latest(remote) is None
    assert features.add(remote, "features-1", [one.id, other.id], vectors) == 2
    assert features.latest(remote) == "features-1"
    assert features.latest(store) == "features-1"
    ids, found = features.read(remote, "features-1", [other.id, "unknown"])
    assert (ids, found.tolist()) == ([other.id], [[1.0, 3.0]])
    with pytest.raises(UserError, match="feature: other vectors of this run have another length"):
        features.add(remote, "features-1", [texts[1][0].id], vectors[:1, :1])
    with pytest.raises(UserError, match="feature: a vector has 1 to 4,096 finite numbers"):
        features.add(remote, "features-1", [texts[1][0].id], np.full((1, 2), np.nan, dtype=np.float32))
    assert store.rows("SELECT messages FROM prompt WHERE id = ?", [prompts[4].id]) == [
        {
            "messages": json.dumps(
                list(prompts[4].messages), ensure_ascii=False, separators=(",", ":"), sort_keys=True
            )
        }
    ]
    with pytest.raises(UserError, match="completion: its prompt is not known; 1 rows are wrong"):
        remote.add_all([Prompt(({"role": "user", "content": "lost"},))], [Completion("nowhere", "x")])
    assert store.value("SELECT count(*) FROM prompt") == 8
    remote.raise_overlap([pair.id for pair in pairs], 2)
    assert store.value("SELECT count(*) FROM comparison WHERE overlap = 2") == 5


def test_files_are_written_here(store: Store, remote: RemoteStore, tmp_path: Path) -> None:
    for write, name in (
        (export_preferences, "p.jsonl"),
        (export_votes, "v.jsonl.gz"),
        (export_votes, "v.parquet"),
    ):
        assert write(remote, tmp_path / f"remote-{name}") == write(store, tmp_path / name) == 3
    assert (tmp_path / "remote-p.jsonl").read_bytes() == (tmp_path / "p.jsonl").read_bytes()
    fetched, wanted = pq.read_table(tmp_path / "remote-v.parquet"), pq.read_table(tmp_path / "v.parquet")
    assert fetched.to_pylist() == wanted.to_pylist()
    assert fetched.schema.names == wanted.schema.names


def test_runs_are_mirrored_and_ids_are_not_shared(store: Store, remote: RemoteStore) -> None:
    run = Run(
        "sft-1", "sft", config={"epochs": 1, "folder": Path("x")}, created_at="2026-01-01", path="/there"
    )
    remote.put_run(run)
    remote.put_run(Run(**{**run.__dict__, "status": "done"}))
    assert store.rows("SELECT id, status, record ->> '$.config.folder' AS f FROM run") == [
        {"id": "sft-1", "status": "done", "f": "x"}
    ]
    with pytest.raises(RunTaken, match="another run is called 'sft-1'"):
        remote.put_run(Run("sft-1", "sft", created_at="2026-01-02"))


def test_refusals_are_one_line_and_say_what_to_do(app: FastAPI, tmp_path: Path) -> None:
    with serving(app) as url:
        cases = [
            (RemoteStore(url, "wrong", pauses=()), "does not know this token: make one .* PALATE_TOKEN"),
            (
                RemoteStore(url, token(app, "annotator"), pauses=()),
                "does not allow it: .*; ask for a lead's token",
            ),
            (
                RemoteStore(f"{url}/elsewhere", token(app), pauses=()),
                "is no Palate server|does not know this token",
            ),
        ]
        for store, why in cases:
            with store:
                with pytest.raises(UserError, match=why) as error:
                    store.rows("SELECT 1")
                assert "\n" not in str(error.value)
        with RemoteStore(url, token(app), pauses=()) as store:
            assert store.answers()
            with pytest.raises(UserError, match="the table 'account' can't be read here"):
                store.rows("SELECT * FROM account")
    with pytest.raises(UserError, match=r"does not answer \(.*\): is `palate label` running there"):
        RemoteStore(url, "x", pauses=()).rows("SELECT 1")
    with pytest.raises(UserError, match=r"a store is an address like https://.*, got 'label.example.org'"):
        RemoteStore("label.example.org", "x")


def test_a_certificate_for_another_name_is_refused(app: FastAPI, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-days",
         "2", "-subj", "/CN=elsewhere.example", "-addext", "subjectAltName=DNS:elsewhere.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    with serving(app, ssl_keyfile=str(key), ssl_certfile=str(cert)) as url:
        start = time.monotonic()
        with pytest.raises(UserError, match="the certificate of https://.* is not valid for it") as error:
            RemoteStore(url, token(app)).rows("SELECT 1")
        assert "SSL_CERT_FILE" in str(error.value)
        assert time.monotonic() - start < 3  # waiting would not make it valid


def test_a_server_that_restarts_is_waited_for(app: FastAPI, store: Store) -> None:
    with serving(app) as url:
        port = int(url.rsplit(":", 1)[1])
        remote = RemoteStore(url, token(app), pauses=(0.2,) * 50)
        assert remote.value("SELECT count(*) FROM prompt") == 3
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(remote.value("SELECT count(*) FROM prompt")))
    asking.start()
    asking.join(0.5)
    assert asking.is_alive()
    with serving(app, port):
        asking.join(20)
        assert found == [3]
        remote.close()


class Unreliable(BaseHTTPRequestHandler):
    """Answers 503 first, then breaks off, then works; keeps what it was sent."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        if len(self.bodies) == 1:
            self.send_response(503)
            self.end_headers()
        elif len(self.bodies) == 2:
            self.connection.close()
        else:
            answer = b'{"new": {"prompt": 1}}'
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


def test_what_failed_is_sent_again_whole() -> None:
    server = HTTPServer(("127.0.0.1", 0), Unreliable)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with RemoteStore(f"http://127.0.0.1:{server.server_port}", "x", pauses=(0.01,) * 5) as remote:
        assert remote.add_prompts([Prompt(({"role": "user", "content": "again"},))]) == 1
    server.shutdown()
    server.server_close()
    assert [len(body) > 500 and b"PAR1" in body for body in Unreliable.bodies] == [True] * 3


def test_what_is_too_large_is_said_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.data.remote.LARGEST", 100)
    with (
        RemoteStore("http://127.0.0.1:1", "x", pauses=()) as remote,
        pytest.raises(UserError, match="at once are too"),
    ):
        remote.add_prompts([Prompt(({"role": "user", "content": "again"},))])


def test_address_of_a_running_server(tmp_path: Path) -> None:
    assert address.running(tmp_path) is None
    here = address.publish(tmp_path, "http://127.0.0.1:7860", "secret")
    assert (
        address.running(tmp_path) == here == address.Address("http://127.0.0.1:7860", "secret", os.getpid())
    )
    path = tmp_path / "server.json"
    assert path.stat().st_mode & 0o777 == 0o600
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale = {**json.loads(path.read_text()), "pid": gone.pid}
    path.write_text(json.dumps(stale))
    assert address.running(tmp_path) is None  # its process is gone
    address.withdraw(tmp_path)
    assert path.exists()  # another server's
    address.publish(tmp_path, "http://127.0.0.1:7860", "secret")
    address.withdraw(tmp_path)
    assert not path.exists()
    path.write_text("{half")
    assert address.running(tmp_path) is None


def test_tokens_of_servers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PALATE_TOKEN", raising=False)
    with pytest.raises(UserError, match="there is no token for https://x: a lead makes one"):
        address.token_for("https://x", tmp_path)
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(UserError, match="can be read by others on this machine: chmod 600"):
        address.token_for("https://x", tmp_path)
    (tmp_path / "token").chmod(0o600)
    assert address.token_for("https://x", tmp_path) == "abc"
    monkeypatch.setenv("PALATE_TOKEN", "from the environment")
    assert address.token_for("https://x", tmp_path) == "from the environment"


def test_times_come_back_as_they_are(store: Store, remote: RemoteStore) -> None:
    assert isinstance(remote.value("SELECT max(created_at) FROM vote"), datetime)
