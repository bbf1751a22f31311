"""The data side of /api/v1 over real HTTP requests: who may, what comes back, what is refused and why."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from palate.data.columns import record_table
from palate.data.preferences import rankings
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Run, Vote, new_id
from palate.data.store import Store, now
from palate.labeling.desk import Desk
from palate.project import Project
from palate.runs import content_hash
from tests.labeling.conftest import fill
from tests.labeling.data_app import data_app, token

ASK, SPLITS = "/api/v1/query", ("train", "test")


@pytest.fixture
def opened(project: Project) -> Iterator[Store]:
    with project.own_store() as store:
        fill(store, n=3)
        yield store


@pytest.fixture
def app(opened: Store, project: Project) -> Iterator[FastAPI]:
    with Desk(opened) as desk:
        yield data_app(opened, project.folder, desk)


def client(app: FastAPI, role: Any = "lead") -> TestClient:
    return TestClient(
        app, base_url="http://localhost", headers={"authorization": f"Bearer {token(app, role)}"}
    )


@pytest.fixture
def lead(app: FastAPI) -> TestClient:
    return client(app)


def arrow(answer: Any) -> pa.Table:
    assert answer.status_code == 200, answer.text
    return pa.ipc.open_stream(answer.content).read_all()


def parquet(records: list[Any] | pa.Table) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(records if isinstance(records, pa.Table) else record_table(records), file)
    file.seek(0)
    return file


def send(lead: TestClient, **tables: Any) -> Any:
    return lead.post(
        "/api/v1/tables", files=[(name, ("x.parquet", parquet(rows))) for name, rows in tables.items()]
    )


def error(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, (answer.status_code, answer.text)
    found = answer.json()["error"]
    assert set(found) == {"code", "message"} and "\n" not in found["message"]
    return f"{found['code']}: {found['message']}"


def test_leads_only(app: FastAPI) -> None:
    nobody = TestClient(app, base_url="http://localhost")
    anna = client(app, "annotator")
    paths = client(app).get("/api/v1/openapi.json").json()["paths"]
    routes = [(method.upper(), path) for path, operations in paths.items() for method in operations]
    assert len(routes) > 15
    for method, path in routes:
        path = (
            path.replace("{export_id}", "votes-" + "0" * 20)
            .replace("{run_id}", "x")
            .replace("{annotator_id}", "x")
        )
        assert error(nobody.request(method, path), 401).startswith("login")
        answer = anna.request(method, path, json={})
        assert answer.status_code in (403, 422), (
            method,
            path,
            answer.text,
        )  # a malformed body may be said first
        if method == "GET":
            assert answer.status_code == 403


def test_query(opened: Store, lead: TestClient, app: FastAPI) -> None:
    sql = "SELECT id, messages FROM prompt WHERE id IN (SELECT unnest(?)) ORDER BY id"
    ids = [row["id"] for row in opened.rows("SELECT id FROM prompt")][:2]
    found = arrow(lead.post(ASK, json={"sql": sql, "params": [ids]}))
    assert found.equals(opened.table(sql, [ids]))
    assert error(lead.post(ASK, json={"sql": "SELECT * FROM account"})).startswith("query_refused: the table")
    assert error(lead.post(ASK, json={"sql": "SELECT x FROM prompt"})).startswith("query_failed")
    assert error(lead.post(ASK, json={"sql": 3}), 422).startswith(
        "invalid: body.sql: Input should be a valid string, got 3"
    )
    assert error(lead.post(ASK, json={"sql": "SELECT 1", "limit": 3}), 422).startswith("invalid: body.limit")
    assert error(lead.post(ASK, content=b"{"), 422).startswith("invalid: body: Input should be a valid dict")
    assert "sql" in error(client(app, "admin").post(ASK, json={}), 422)


def test_tables_are_stored_whole_or_not_at_all(opened: Store, lead: TestClient, app: FastAPI) -> None:
    prompt = Prompt(({"role": "user", "content": "new"},), "api", run_id="sample-1")
    answers = [Completion(prompt.id, text, run_id="sample-1") for text in ("a", "b")]
    pair = Comparison(prompt.id, tuple(one.id for one in answers), run_id="sample-1")
    before = opened.counts()
    stranger = Completion("nowhere", "c")
    assert "prompt is not known" in error(send(lead, prompt=[prompt], completion=[*answers, stranger]))
    assert opened.counts() == before
    # in any order: what is referred to may come in the same request
    answer = send(lead, comparison=[pair], completion=answers, prompt=[prompt])
    assert answer.json() == {"new": {"prompt": 1, "completion": 2, "comparison": 1}}
    assert send(lead, prompt=[prompt]).json() == {"new": {"prompt": 0}}
    assert lead.post("/api/v1/comparisons/overlap", json={"ids": [pair.id], "overlap": 3}).json() == {
        "changed": 1
    }
    assert opened.value("SELECT overlap FROM comparison WHERE id = ?", [pair.id]) == 3
    raised = lead.post("/api/v1/comparisons/priority", json={"ids": [pair.id], "priority": 7})
    assert raised.json() == {"changed": 1}
    (item,) = app.state.desk.next_items(app.state.people.find("lead").person.id, Random(0))
    assert item.messages == prompt.messages


def test_new_comparisons_are_handed_out(opened: Store, lead: TestClient, app: FastAPI) -> None:
    opened.write("DELETE FROM comparison")
    app.state.desk.refresh()
    anna = app.state.people.create("anna").id
    assert app.state.desk.next_items(anna, Random(0)) == []
    prompt_id, *_ = opened.rows(
        "SELECT prompt_id, list(id) AS ids FROM completion GROUP BY prompt_id ORDER BY 1"
    )
    body = {"comparisons": [{"prompt_id": prompt_id["prompt_id"], "completion_ids": prompt_id["ids"]}]}
    added = lead.post("/api/v1/comparisons", json=body).json()
    assert (added["new"], len(added["ids"])) == (1, 1)
    (item,) = app.state.desk.next_items(anna, Random(0))
    assert len(item.answers) == 2
    opened.write("DELETE FROM comparison")
    app.state.desk.refresh()
    opened.add_comparisons(
        [Comparison(prompt_id["prompt_id"], tuple(prompt_id["ids"]))]
    )  # stored, and not told
    assert lead.post("/api/v1/comparisons", json=body).json()["new"] == 0  # the second try of an upload
    assert app.state.desk.counts()["waiting"] == 1


def judged(store: Store, run_id: str | None = "import-9", **vote: Any) -> dict[str, Any]:
    """A vote of a rule with its annotator and assignment, as an import brings it."""
    row = store.rows("SELECT id, completion_ids FROM comparison ORDER BY id LIMIT 1")[0]
    who = Annotator("r", "rule")
    shown = Assignment(row["id"], who.id, tuple(row["completion_ids"]), "done")
    ranking = tuple((one,) for one in row["completion_ids"])
    made = Vote(
        **{"assignment_id": shown.id, "verdict": "ranked", "ranking": ranking, "run_id": run_id, **vote}
    )
    return {"annotator": [who], "assignment": [shown], "vote": [made]}


def test_votes_that_were_brought_are_taken_and_nobody_is_impersonated(
    opened: Store, lead: TestClient
) -> None:
    taken = judged(opened)
    assert send(lead, **taken).json() == {"new": {"annotator": 1, "assignment": 1, "vote": 1}}
    assert "names the run that brought it" in error(send(lead, **judged(opened, None)))
    assert "ranks other completions" in error(send(lead, **judged(opened, ranking=(("x",), ("y",)))))
    assert "names each completion once" in error(send(lead, **judged(opened, ranking=(("x",), ("x",)))))
    assert "have a ranking" in error(send(lead, **judged(opened, verdict="skip")))
    assert "supersedes a vote" in error(send(lead, **judged(opened, supersedes="unknown")))
    screen = Vote(taken["assignment"][0].id, "all_bad", created_at=now())
    opened.add_votes([screen])
    assert "cast at the screen" in error(send(lead, **judged(opened, supersedes=screen.id)))
    assert "belongs to another vote" in error(
        send(lead, **{**judged(opened), **other_assignment(opened, screen.id)})
    )
    open_one = {**judged(opened), "assignment": [Assignment(taken["assignment"][0].comparison_id, "x", ())]}
    assert "state is done" in error(send(lead, **open_one))
    assert "role is annotator" in error(send(lead, annotator=[Annotator("mallory", role="admin")]))
    assert opened.value("SELECT count(*) FROM vote") == 2


def other_assignment(store: Store, vote_id: str) -> dict[str, Any]:
    row = store.rows("SELECT id, completion_ids FROM comparison ORDER BY id DESC LIMIT 1")[0]
    shown = Assignment(row["id"], Annotator("r", "rule").id, (), "done")
    made = Vote(
        shown.id, "ranked", tuple((one,) for one in row["completion_ids"]), run_id="import-9", id=vote_id
    )
    return {"assignment": [shown], "vote": [made]}


MESSAGES = ("[]", "{}", "x", '["hi"]', '[{"role":"user"}]', '[{"role":"robot","content":"x"}]',
            '[{"role":"assistant","content":"x"}]', '[{"role":"user","content":3,"x":[1]}]')  # fmt: skip


def test_rows_that_would_break_the_screen_are_refused(opened: Store, lead: TestClient) -> None:
    good = record_table([Prompt(({"role": "user", "content": "x"},))])
    for messages in MESSAGES[:-1]:
        bad = good.set_column(good.schema.get_field_index("messages"), "messages", pa.array([messages]))
        assert "message" in error(send(lead, prompt=bad)), messages
    for column, value, why in (("id", "", "1 to 200"), ("id", "a\nb", "visible"), ("split", "dev", "train or test"),
                               ("meta", "[]", "JSON object"), ("source", None, "not null")):  # fmt: skip
        bad = good.set_column(good.schema.get_field_index(column), column, pa.array([value], pa.string()))
        assert why in error(send(lead, prompt=bad)), column
    assert "unknown columns x" in error(send(lead, prompt=good.append_column("x", pa.array([1]))))
    assert "missing columns tags" in error(send(lead, prompt=good.drop_columns("tags")))
    assert "no table 'account'" in error(send(lead, account=good))
    assert "no Parquet file" in error(lead.post("/api/v1/tables", files={"prompt": ("x", b"PAR1 nonsense")}))
    assert "send Parquet files" in error(lead.post("/api/v1/tables", files={"": ("", b"")}), 400)
    assert opened.counts()["prompt"] == 3


def test_pages_of_records(opened: Store, lead: TestClient) -> None:
    first = lead.get("/api/v1/completions", params={"limit": 4}).json()
    rest = lead.get("/api/v1/completions", params={"limit": 4, "after": first["next"]}).json()
    assert (len(first["items"]), len(rest["items"]), rest["next"]) == (4, 2, None)
    ids = [row["id"] for row in first["items"] + rest["items"]]
    assert ids == [row["id"] for row in opened.rows("SELECT id FROM completion ORDER BY id")]
    models = lead.get("/api/v1/completions", params={"model": "secret-model-a"}).json()["items"]
    assert {row["model"] for row in models} == {"secret-model-a"}
    (prompt,) = lead.get("/api/v1/prompts", params={"limit": 1}).json()["items"]
    assert prompt["messages"][0]["role"] == "user" and prompt["meta"] == {}
    opened.add_prompts([Prompt(({"role": "user", "content": "t"},), tags=("odd",), split="test")])
    assert len(lead.get("/api/v1/prompts", params={"tag": "odd", "split": "test"}).json()["items"]) == 1
    of = {
        kind: opened.value("SELECT count(*) FROM prompt WHERE split = ? AND tags = []", [kind])
        for kind in SPLITS
    }
    for kind, number in of.items():
        asked = {"split": kind, "source": ""}
        assert len(lead.get("/api/v1/comparisons", params=asked).json()["items"]) == number
        assert len(lead.get("/api/v1/completions", params=asked).json()["items"]) == 2 * number
    assert lead.get("/api/v1/votes", params={"tag": "odd"}).json()["items"] == []
    assert lead.get("/api/v1/votes").json() == {"items": [], "next": None}
    opened.add_votes(judged_votes(opened))
    (vote,) = lead.get("/api/v1/votes", params={"kind": "rule"}).json()["items"]
    assert vote["annotator_name"] == "r" and vote["run_id"] == "import-9"
    assert error(lead.get("/api/v1/prompts", params={"limit": 5000}), 422) == (
        "invalid: query.limit: Input should be less than or equal to 1000, got '5000'"
    )


def judged_votes(store: Store) -> list[Vote]:
    made = judged(store)
    store.add_annotators(made["annotator"])
    store.add_assignments(made["assignment"])
    return list(made["vote"])


def test_small_additions(opened: Store, lead: TestClient) -> None:
    body: dict[str, Any] = {"prompts": [{"messages": [{"role": "user", "content": "How?"}], "tags": ["a"]}]}
    added = lead.post("/api/v1/prompts", json=body).json()
    assert added["new"] == 1 and lead.post("/api/v1/prompts", json=body).json() == {**added, "new": 0}
    texts = [{"prompt_id": added["ids"][0], "text": text, "model": "m"} for text in ("So.", "Thus.")]
    completions = lead.post("/api/v1/completions", json={"completions": texts}).json()
    assert completions["new"] == 2
    scores = [{"completion_id": one, "run_id": "reward-1", "mean": 0.5} for one in completions["ids"]]
    assert lead.post("/api/v1/scores", json={"scores": scores}).json()["new"] == 2
    page = lead.get("/api/v1/scores", params={"run_id": "reward-1", "limit": 1}).json()
    assert page["items"][0]["mean"] == 0.5
    assert len(lead.get("/api/v1/scores", params={"after": page["next"]}).json()["items"]) == 1
    wrong = {"comparisons": [{"prompt_id": added["ids"][0], "completion_ids": [completions["ids"][0]] * 2}]}
    assert "2 to 9 different" in error(lead.post("/api/v1/comparisons", json=wrong))
    body["prompts"][0]["messages"][0]["role"] = "assistant"
    assert "end with a user turn" in error(lead.post("/api/v1/prompts", json=body))
    assert error(lead.post("/api/v1/prompts", json={"prompts": []}), 422).startswith("invalid: body.prompts")


def test_runs(lead: TestClient, opened: Store) -> None:
    run = Run("sft-1", "sft", ("import-1",), {"epochs": 1}, created_at="2026-01-01T00:00:00+00:00")
    body = {**run.__dict__, "parents": list(run.parents)}
    assert lead.put("/api/v1/runs/sft-1", json=body).json() == {"id": "sft-1", "status": "running"}
    assert lead.put("/api/v1/runs/sft-1", json={**body, "status": "done"}).json()["status"] == "done"
    assert lead.get("/api/v1/runs/sft-1").json()["config"] == {"epochs": 1}
    assert [one["id"] for one in lead.get("/api/v1/runs", params={"stage": "sft"}).json()["runs"]] == [
        "sft-1"
    ]
    other = {**body, "created_at": "2026-01-02T00:00:00+00:00"}
    assert error(lead.put("/api/v1/runs/sft-1", json=other), 409).startswith("taken: another run is called")
    assert error(lead.put("/api/v1/runs/sft-2", json=body)).startswith(
        "invalid: the record is of run 'sft-1'"
    )
    assert error(lead.get("/api/v1/runs/sft-9"), 404).startswith("not_found: there is no run 'sft-9'")
    assert error(lead.put("/api/v1/runs/.x", json=body), 422)


def test_frozen_exports(opened: Store, lead: TestClient, project: Project, app: FastAPI) -> None:
    opened.add_votes(judged_votes(opened))
    made = lead.post("/api/v1/exports", json={"what": "rankings"}).json()
    assert made["rows"] == 1 and made["sha256"] == content_hash(rankings(opened))
    assert lead.post("/api/v1/exports", json={"what": "rankings"}).json() == made  # the same rows
    file = lead.get(f"/api/v1/exports/{made['id']}")
    assert content_hash(pq.read_table(io.BytesIO(file.content))) == made["sha256"]
    for what in ("preferences", "votes"):
        frozen = lead.post("/api/v1/exports", json={"what": what, "annotators": "rule"}).json()
        assert frozen["rows"] == 1 and frozen["id"].startswith(what)
        assert (
            lead.get(f"/api/v1/exports/{frozen['id']}").headers["content-type"]
            == "application/vnd.apache.parquet"
        )
    assert error(lead.get("/api/v1/exports/votes-" + "0" * 20), 404)
    for name in ("..%2Fpalate.duckdb", "votes-..%2F..%2Fetc%2Fpasswd", "%2e%2e", "votes-" + "g" * 20):
        assert lead.get(f"/api/v1/exports/{name}").status_code in (404, 422)
    assert error(lead.post("/api/v1/exports", json={"what": "votes", "source": "x"}))
    assert not [path for path in (project.folder / "exports").iterdir() if path.name.startswith(".")]


def test_half_characters_are_refused(lead: TestClient) -> None:
    half, turn = "\ud800", {"role": "user", "content": "x"}
    run = {"id": "sft-1", "stage": "sft", "created_at": "2026", "config": {"a": {half: 1}}}
    for method, path, body in (
        ("POST", "prompts", {"prompts": [{"messages": [turn], "meta": {"a": [half]}}]}),
        ("POST", "prompts", {"prompts": [{"messages": [{**turn, "content": half}]}]}),
        ("PUT", "runs/sft-1", run),
        ("PUT", "runs/sft-1", {**run, "config": {}, "files": {"a": {"b": half}}}),
    ):
        sent = {"content": json.dumps(body), "headers": {"content-type": "application/json"}}
        assert error(lead.request(method, f"/api/v1/{path}", **sent), 422)  # type: ignore[arg-type]
    sent = {"sql": "SELECT ?", "params": [half]}
    answer = lead.post(ASK, content=json.dumps(sent), headers={"content-type": "application/json"})
    assert error(answer).startswith("query_failed")


def test_rules_vote_and_people_do_not(opened: Store, lead: TestClient, app: FastAPI) -> None:
    rule, person = Annotator("r", "rule"), app.state.people.create("anna")
    opened.add_annotators([rule])
    base = f"/api/v1/rule-annotators/{rule.id}"
    items = lead.post(f"{base}/next", json={"limit": 2, "seed": 1}).json()["items"]
    assert len(items) == 2 and set(items[0]) == {"assignment", "messages", "answers"}
    ballots = [{"vote_id": new_id(), "assignment": item["assignment"], "verdict": "tie"} for item in items]
    saved = lead.post(f"{base}/votes", json={"run_id": "simulate-1", "ballots": ballots}).json()["saved"]
    assert saved == [ballot["vote_id"] for ballot in ballots]
    again = lead.post(f"{base}/votes", json={"run_id": "simulate-1", "ballots": ballots})
    assert again.json()["saved"] == saved  # sent twice is one vote
    assert {row["run_id"] for row in opened.rows("SELECT run_id FROM vote")} == {"simulate-1"}
    wanted = {"run_id": "simulate-1", "ballots": ballots}
    assert error(lead.post(f"/api/v1/rule-annotators/{person.id}/votes", json=wanted), 403).startswith(
        "not_a_rule"
    )
    assert error(lead.post("/api/v1/rule-annotators/x/next", json={"limit": 1}), 403).startswith("not_a_rule")


def test_description_and_what_is_not_there(app: FastAPI, lead: TestClient) -> None:
    described = client(app, "annotator").get("/api/v1/openapi.json").json()
    put = described["paths"]["/api/v1/runs/{run_id}"]["put"]
    assert {"200", "401", "403", "409", "422", "503"} <= set(put["responses"])
    assert put["responses"]["422"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Error"
    }
    assert "HTTPValidationError" not in described["components"]["schemas"]
    assert "/api/v1/query" in described["paths"]
    page = lead.get("/api/v1/docs")
    assert "<script" not in page.text and "http" not in page.text.replace("<!doctype html>", "")
    assert error(lead.get("/api/v1/nothing"), 404).startswith("not_found: there is no /api/v1/nothing")
    refused = lead.delete("/api/v1/query")
    assert error(refused, 405) and refused.headers["allow"] == "POST"


def test_a_lent_token_is_a_leads(app: FastAPI, opened: Store, tmp_path: Path) -> None:
    here = TestClient(
        app, base_url="http://localhost", headers={"authorization": f"Bearer {app.state.people.lend()}"}
    )
    assert here.get("/api/v1/runs").json() == {"runs": []}
    assert opened.value("SELECT count(*) FROM access_token") == 0
