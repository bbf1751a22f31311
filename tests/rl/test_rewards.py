"""Sources of reward: a run, a function, an address, and their sum; what is wrong is said in one line."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from palate.config import RewardConfig, UserError
from palate.hardware import probe
from palate.project import Project
from palate.reward import train
from palate.reward.scorers import open_scorer
from palate.rl.rewards import Part, Rewards, open_rewards, parse

Make = Callable[..., Project]
PROMPTS = [[{"role": "user", "content": "where is 3?"}], [{"role": "user", "content": "and 4?"}]]
CPU = probe("cpu", "float32")


def test_specifications() -> None:
    assert parse("reward-1") == Part("reward-1", 1.0)
    assert parse("reward-1=0.8") == Part("reward-1", 0.8)
    assert parse("brevity.py:score=-2e-1") == Part("brevity.py:score", -0.2)
    assert parse("https://host/score?key=abc") == Part("https://host/score?key=abc", 1.0)
    assert parse("https://host/score?key=7=0.5") == Part("https://host/score?key=7", 0.5)


def test_function_of_a_file(ranked_project: Make, tmp_path: Path) -> None:
    file = tmp_path / "brevity.py"
    file.write_text(
        "def short(prompts, texts):\n    return [-len(text) for text in texts]\n"
        "def ends(prompts, texts, reasons):\n    return [float(r == 'stop') for r in reasons]\n"
        "def wrong(prompts, texts):\n    return [1.0]\n"
        "def broken(prompts, texts):\n    return 1 / 0\n"
        "def nan(prompts, texts):\n    return [float('nan')] * len(texts)\n"
    )
    project = ranked_project()
    parts = [parse(f"{file}:short=0.5"), parse(f"{file}:ends=10")]
    rewards = open_rewards(project, parts, CPU)
    assert rewards.score(PROMPTS, ["abcd", "ab"], ["stop", "length"]) == [8.0, -1.0]
    for name, sentence in (
        ("wrong", "gave 1 rewards for 2 texts"),
        ("broken", "ZeroDivisionError"),
        ("nan", "for text 1 of 2: a reward is a number"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_rewards(project, [parse(f"{file}:{name}")], CPU).score(PROMPTS, ["a", "b"])
    with pytest.raises(UserError, match="no function other"):
        open_rewards(project, [parse(f"{file}:other")], CPU)
    with pytest.raises(UserError, match="there is no file"):
        open_rewards(project, [parse("nowhere.py:f")], CPU)
    with pytest.raises(UserError, match="at least one source"):
        open_rewards(project, [], CPU)


@pytest.fixture
def server() -> Iterator[tuple[str, list[int]]]:
    """An address that answers with the lengths of the texts; `codes` are the statuses it gives first."""
    codes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = codes.pop(0) if codes else 200
            self.send_response(status)
            self.end_headers()
            rows = [{"reward": len(row["completion"])} for row in asked["rows"]]
            self.wfile.write(json.dumps({"rows": rows if status == 200 else []}).encode())

        def log_message(self, *args: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/score", codes
    http.shutdown()


def test_address(ranked_project: Make, server: tuple[str, list[int]]) -> None:
    url, codes = server
    rewards = open_rewards(ranked_project(), [parse(f"{url}=2")], CPU)
    assert rewards.score(PROMPTS * 100, ["abc", "a"] * 100) == [6.0, 2.0] * 100  # two requests
    codes += [503]
    assert rewards.score(PROMPTS, ["abc", "a"]) == [6.0, 2.0]  # asked again
    codes += [400]
    with pytest.raises(UserError, match="gives no rewards: status 400"):
        rewards.score(PROMPTS, ["abc", "a"])


def test_a_run_among_others_and_pessimism(ranked_project: Make, tmp_path: Path) -> None:
    project = ranked_project()
    train.run(project, RewardConfig(project.folder, device="cpu", dtype="float32", learning_curve=False))
    texts, asked = ["the mat 77", "a cat 77 sat down"], [PROMPTS[0]] * 2
    plain, sds = open_scorer(project, "reward-1", CPU)[0].score_with_sd(asked, texts)
    assert sds is not None
    found = open_rewards(project, [Part("reward-1", 2.0)], CPU, pessimism=1.5).score(asked, texts)
    assert found == pytest.approx([2 * (r - 1.5 * sd) for r, sd in zip(plain, sds, strict=True)], abs=1e-5)
    assert isinstance(open_rewards(project, [Part("reward-1", 1.0)], CPU), Rewards)
