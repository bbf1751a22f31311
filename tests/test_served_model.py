"""Answers from an OpenAI-compatible server: a real one over HTTP, that gives many answers, or one at a time, or errors."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from palate import sampling
from palate.config import SampleConfig, UserError
from palate.generation import Sampled
from palate.project import Project
from palate.served_model import ServedModel, is_address

Make = Callable[..., Project]


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Any]]]:
    """An address, and how it behaves: `most` answers a request, `codes` it gives first, `body` instead of an answer."""
    how: dict[str, Any] = {"most": 9, "codes": [], "body": None, "asked": []}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content: Any) -> None:
            status = how["codes"].pop(0) if how["codes"] else 200
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(how["body"] or content).encode())

        def do_GET(self) -> None:
            self.answer({"data": [{"id": "the-model"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            how["asked"].append(asked)
            choices = [
                {
                    "message": {"content": f"answer {asked['seed']} {i}"},
                    "finish_reason": "length" if i == 1 else "stop",
                }
                for i in range(min(asked["n"], how["most"]))
            ]
            self.answer({"choices": choices})

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", how
    http.shutdown()


def test_answers(server: tuple[str, dict[str, Any]]) -> None:
    url, how = server
    model = ServedModel(url)
    assert model.name == "the-model" and ServedModel(f"{url}#other").name == "other"
    prompts = [[{"role": "user", "content": f"where is {i}?"}] for i in range(5)]
    ticks: list[int] = []
    found = model.sample(prompts, 3, 0.7, 0.9, 20, seed=4, progress=ticks.append)
    assert [[one.finish_reason for one in row] for row in found] == [["stop", "length", "stop"]] * 5
    assert sum(ticks) == 15 and len({row[0].text for row in found}) == 5
    assert {(a["n"], a["temperature"], a["top_p"], a["max_tokens"], a["model"]) for a in how["asked"]} == {(3, 0.7, 0.9, 20, "the-model")}  # fmt: skip
    assert found == model.sample(prompts, 3, 0.7, 0.9, 20, seed=4)
    assert all(isinstance(one, Sampled) and one.token_ids == [] for row in found for one in row)


def test_a_server_that_gives_one_answer_at_a_time(server: tuple[str, dict[str, Any]]) -> None:
    url, how = server
    how["most"] = 1
    found = ServedModel(f"{url}#m").sample([[{"role": "user", "content": "?"}]], 3)
    assert len({one.text for one in found[0]}) == 3 and [a["n"] for a in how["asked"]] == [3, 2, 1]


def test_errors_are_one_line(server: tuple[str, dict[str, Any]]) -> None:
    url, how = server
    model = ServedModel(f"{url}#m")
    how["codes"] = [503]
    assert len(model.sample([[{"role": "user", "content": "?"}]], 1)[0]) == 1  # asked again
    how["codes"] = [401]
    with pytest.raises(UserError, match="does not answer: status 401"):
        model.sample([[{"role": "user", "content": "?"}]], 1)
    how["body"] = {"error": "no"}
    with pytest.raises(UserError, match="something else than chat completions"):
        model.sample([[{"role": "user", "content": "?"}]], 1)
    with pytest.raises(UserError, match="lists no models"):
        ServedModel(url)
    assert is_address("https://host/v1") and not is_address("sft-1")


def test_palate_sample_from_a_server(ranked_project: Make, server: tuple[str, dict[str, Any]]) -> None:
    project, url = ranked_project(), server[0]
    run = sampling.run(project, SampleConfig(project.folder, k=3, models=(f"{url}#m",), limit=4))
    assert run.metrics["completions"] == 12 and run.metrics["comparisons"] == 4
    assert run.parents == () and run.template_hash is None
    with project.store() as store:
        assert store.value("SELECT count(*) FROM completion WHERE model = ?", [f"{url}#m"]) == 12
