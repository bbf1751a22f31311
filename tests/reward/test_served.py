"""Scores over real HTTP: the command's own process, one caller and many, tokens, sizes, plain words."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from palate.config import RewardConfig, RewardServeConfig, UserError
from palate.hardware import probe
from palate.project import Project
from palate.reward import served, train
from palate.reward.model import load_reward

Make = Callable[..., Project]
SOURCE = str(Path(__file__).parents[2] / "src")


@contextmanager
def serving(
    project: Project, *flags: str, **variables: str
) -> Iterator[tuple[httpx.Client, "subprocess.Popen[str]"]]:
    """`palate reward serve` as a process of its own, and a client of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "palate",
        "reward",
        "serve",
        "--project",
        str(project.folder),
        "--port",
        str(port),
    ]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "PYTHONUNBUFFERED": "1", **variables}
    process = subprocess.Popen(
        [*command, "--device", "cpu", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("open:"):
                break
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, transport=httpx.HTTPTransport(retries=20)
        )
        yield client, process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_scores_over_http(ranked_project: Make) -> None:
    project = ranked_project(prompts=8, held_out=2)
    run = train.run(project, RewardConfig(project.folder, device="cpu", dtype="float32"))
    texts = [f"the mat {i} " * (1 + i % 3) for i in range(12)]
    asked = [[{"role": "user", "content": "where is it?"}]] * 12
    expected, sds = load_reward(project, run.id, probe("cpu", "float32")).score_with_sd(asked, texts)
    assert sds is not None
    with serving(project) as (client, process):
        assert client.get("/healthz").json() == {"status": "ok", "model": run.id}
        one = client.post("/score", json={"prompt": "where is it?", "completion": texts[1]}).json()
        assert one == {
            "model": run.id,
            "reward": pytest.approx(expected[1], abs=1e-4),
            "reward_std": pytest.approx(sds[1], rel=1e-3),
        }
        more = client.post(
            "/score", json={"messages": [*asked[0], {"role": "assistant", "content": texts[2]}]}
        )
        assert more.json()["reward"] == pytest.approx(expected[2], abs=1e-4)
        rows = [
            {"prompt": asked[0], "completions": texts[:6]},
            {"prompt": "where is it?", "completion": texts[6]},
        ]
        found = client.post("/score", json={"rows": rows}).json()["rows"]
        assert found[0]["rewards"] == pytest.approx(expected[:6], abs=1e-4)
        assert found[0]["rewards_std"] == pytest.approx(sds[:6], rel=1e-3)
        assert found[1]["reward"] == pytest.approx(expected[6], abs=1e-4)

        def ask(text: str) -> float:
            return float(
                client.post("/score", json={"prompt": "where is it?", "completion": text}).json()["reward"]
            )

        with ThreadPoolExecutor(12) as pool:  # together, and one that is wrong among them
            wrong = pool.submit(client.post, "/score", json={"prompt": "", "completion": "x"})
            assert list(pool.map(ask, texts)) == pytest.approx(expected, abs=1e-4)
        assert wrong.result().status_code == 422
        assert wrong.result().json() == {"error": {"message": "the request: the prompt is empty"}}

        for body, status, words in (
            ({"prompt": "x"}, 422, "completion is missing"),
            ({"prompt": "x", "completion": "y", "model": "z"}, 422, "model: Extra inputs are not permitted"),
            ({"prompt": "x", "completions": ["y"] * 300}, 422, "at most 256"),
            (
                {"rows": [{"prompt": "x", "completions": ["y"] * 200}] * 2},
                413,
                "at most 256 texts in a request",
            ),
        ):
            refused = client.post("/score", json=body)
            assert refused.status_code == status and words in refused.json()["error"]["message"]
        large = client.post(
            "/score", content=b"{" + b" " * (9 << 20), headers={"Content-Type": "application/json"}
        )
        assert large.status_code == 413
        assert client.post("/score", json={}, headers={"Host": "evil.example"}).status_code == 400
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)
        assert process.stdout is not None and "Traceback" not in process.stdout.read()


@pytest.mark.slow
def test_away_from_localhost_a_token_is_needed(ranked_project: Make) -> None:
    project = ranked_project(prompts=4, held_out=1)
    train.run(project, RewardConfig(project.folder, device="cpu", dtype="float32"))
    with pytest.raises(
        UserError, match=re.escape("--host 0.0.0.0 is open to others: put a token into PALATE_SCORE_TOKEN")
    ):
        served.run(project, RewardServeConfig(project.folder, host="0.0.0.0"))
    with serving(project, "--host", "0.0.0.0", PALATE_SCORE_TOKEN="secret-1") as (client, _):
        ask = {"prompt": "where?", "completion": "there"}
        assert client.post("/score", json=ask).status_code == 401
        assert client.post("/score", json=ask, headers={"Authorization": "Bearer no"}).status_code == 401
        assert (
            "reward" in client.post("/score", json=ask, headers={"Authorization": "Bearer secret-1"}).json()
        )
