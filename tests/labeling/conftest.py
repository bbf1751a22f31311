"""Small stores and projects with comparisons to vote on, and a label server as its user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from palate.data.records import Comparison, Completion, Prompt
from palate.data.store import Store
from palate.project import Project

ROOT = Path(__file__).parents[2]
TEXTS = ("one", "two words", "three words here", "and four words here")
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}  # of a process that a test starts
MODELS = ("secret-model-a", "secret-model-b")


def fill(
    store: Store, n: int = 3, k: int = 2, overlap: int = 1, texts: tuple[str, ...] = ()
) -> list[Comparison]:
    """`n` comparisons of `k` answers each, by two models in turn."""
    prompts = [Prompt(({"role": "user", "content": f"idea {i} of {k}"},)) for i in range(n)]
    completions = [
        [Completion(p.id, (texts or TEXTS)[j % 4] + " ." * (j // 4), model=MODELS[j % 2]) for j in range(k)]
        for p in prompts
    ]
    comparisons = [
        Comparison(p.id, tuple(c.id for c in group), overlap=overlap)
        for p, group in zip(prompts, completions, strict=True)
    ]
    store.add_prompts(prompts)
    store.add_completions([c for group in completions for c in group])
    store.add_comparisons(comparisons)
    return comparisons


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project", name="Small <b>project</b>")


@dataclass
class Server:
    """A running `palate label`."""

    url: str
    process: subprocess.Popen[str]

    def stop(self, sign: int = signal.SIGINT) -> float:
        """Send the signal; returns the seconds until the process was gone."""
        start = time.monotonic()
        self.process.send_signal(sign)
        self.process.wait(20)
        return time.monotonic() - start


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start `palate label` on a free port; killed at the end of the test if it still runs."""
    running: list[subprocess.Popen[str]] = []

    def start(folder: Path, *flags: str) -> Server:
        command = [sys.executable, "-m", "palate", "label", "--project", str(folder), "--no-browser", *flags]
        if "--port" not in flags:
            command += ["--port", "0"]
        process = subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"http://\S+", line):
                break
        else:
            raise AssertionError(f"the server did not start, status {process.wait()}")
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{found.group(0)}healthz")
                break
            except OSError:
                time.sleep(0.1)
        return Server(found.group(0), process)

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
