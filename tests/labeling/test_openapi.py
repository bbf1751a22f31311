"""Every route that /api/v1 describes, with generated requests, as every role: no server error, answers as described."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from palate.config import LabelConfig
from palate.data.records import new_id
from palate.labeling.api import openapi
from palate.labeling.people import ROLES
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import fill

pytestmark = pytest.mark.slow
EXAMPLES = 8  # per operation, role and kind of request
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
KINDS = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The app on a small project, as a client that shows server errors instead of raising them."""
    project = Project.create(tmp_path_factory.mktemp("openapi") / "project")
    with project.own_store() as store:
        fill(store, 30, k=3)
        app = make_app(store, project, LabelConfig(project.folder, browser=False, criteria=("helpful",)))
        app.state.people.create("the last admin", "admin")
        with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as opened:
            yield opened


@pytest.mark.parametrize("role", ROLES)
def test_no_request_breaks_a_route(client: TestClient, role: Any) -> None:
    people = client.app.state.people  # type: ignore[attr-defined]
    token, _ = people.make_token(people.create(f"a tester, {role}", role).id, "test")
    known = known_ids(client, token)
    schema = schemathesis.openapi.from_dict(openapi(client.app))  # type: ignore[arg-type]
    broken: dict[tuple[str, str, int], str] = {}
    asked: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]
        exercise(client, operation, token, known, broken, asked)
    assert not broken, f"{len(broken)} broken:\n" + "\n\n".join(broken.values())
    assert asked[200] > 20 and len(asked) > 3, asked


def exercise(
    client: TestClient,
    operation: Any,
    token: str,
    known: list[str],
    broken: dict[tuple[str, str, int], str],
    asked: Counter[int],
) -> None:
    """Requests to one operation, valid ones and malformed ones; notes what broke and which statuses came."""
    cases = st.one_of(*(operation.as_strategy(generation_mode=kind) for kind in KINDS))

    @settings(
        max_examples=EXAMPLES * len(KINDS), derandomize=True, database=None, deadline=None,
        phases=(Phase.generate,), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, pick=st.integers(0, 10**6))
    def ask(case: Any, pick: int) -> None:
        for name in case.path_parameters or {}:
            if pick % 3:  # what is there, so that more than "no such thing" is answered
                case.path_parameters[name] = known[pick % len(known)]
        sent: Any = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
        headers = {**sent.headers, "Authorization": f"Bearer {token}"}
        response = client.request(sent.method, sent.url, headers=headers, content=sent.body)
        asked[response.status_code] += 1
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as failures:
            for failure in failures.exceptions:
                shown = f"({case.as_curl_command()[:400]}) -> {response.status_code} {response.text[:200]}"
                key = (operation.label, failure.title, response.status_code)
                broken.setdefault(key, f"{operation.label}: {failure} {shown}")

    ask()


def known_ids(client: TestClient, token: str) -> list[str]:
    """Ids of what is there: an assignment, a vote, people, prompts."""
    headers = {"Authorization": f"Bearer {token}"}
    item = client.post("/api/v1/next", json={"have": []}, headers=headers).json()["items"][0]
    ballot = {"vote_id": new_id(), "assignment": item["assignment"], "verdict": "tie"}
    assert client.post("/api/v1/votes", json=ballot, headers=headers).status_code == 200
    store = client.app.state.people.store  # type: ignore[attr-defined]
    there = [
        store.value(f"SELECT id FROM {table} ORDER BY id") for table in ("prompt", "completion", "comparison")
    ]
    return [item["assignment"], str(ballot["vote_id"]), *there]
