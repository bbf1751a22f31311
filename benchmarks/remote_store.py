"""What the way through a running server costs: `RemoteStore` against the file itself, and what voters feel of it.

    python benchmarks/remote_store.py            100,000 rows (docs/api.md names the figures)
    python benchmarks/remote_store.py --quick    a smoke run

`read` and `add` are seconds for all rows: a table of completions read as Arrow, and as many new ones added. The
peer is `Store` on a file of its own. Meanwhile one annotator votes over HTTP, a vote every 50 ms; `vote_ms` has
their p50 and p95 alone and during each.
"""

import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import arguments, finish

from palate.data import address
from palate.data.any_store import AnyStore
from palate.data.columns import record_table
from palate.data.records import Comparison, Completion, Prompt
from palate.data.remote import RemoteStore
from palate.data.store import Store
from palate.project import Project
from tests.labeling.annotator_client import Page, add_people

TEXT = "A quiet harbour at dawn, mist over the water, soft light, wide shot. " * 4
READ = "SELECT id, prompt_id, text, model FROM completion"


class Voter(threading.Thread):
    """One annotator, a vote every 50 ms; `phase` names what happens meanwhile."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(daemon=True)
        self.page, self.phase, self.over = Page(url, token), "alone", threading.Event()
        self.seconds: dict[str, list[float]] = {}

    def run(self) -> None:
        """Vote until told to stop."""
        while not self.over.wait(0.05):
            phase, start = self.phase, time.perf_counter()
            if self.page.step() == "voted":
                self.seconds.setdefault(phase, []).append(time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__ or "")
    rows = 2_000 if given.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder) / "served")
        with project.own_store() as store:
            prompts = fill(store, rows)
            token = add_people(store, ["anna"])["anna"]
        with Store(Path(folder) / "own.duckdb") as own:
            fill(own, rows)
            peer = measure(own, prompts, rows, given.repeats, lambda _: None)
        command = [
            sys.executable,
            "-m",
            "palate",
            "label",
            "--project",
            str(project.folder),
            "--no-browser",
            "--port",
            "0",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            wait(server)
            found = address.running(project.folder)
            assert found is not None, "the server did not say where it is"
            voter = Voter(found.url, token)
            try:
                with RemoteStore(found.url, found.token) as remote:
                    assert remote.counts()["completion"] == rows  # it answers
                    voter.start()
                    time.sleep(1 if given.quick else 5)
                    ours = measure(
                        remote, prompts, rows, given.repeats, lambda phase: setattr(voter, "phase", phase)
                    )
            finally:
                voter.over.set()
                voter.join(10)
                server.terminate()
    votes = {phase: {"p50": p(times, 50), "p95": p(times, 95)} for phase, times in voter.seconds.items()}
    for phase, figures in votes.items():
        print(f"vote, {phase:<8} p50 {figures['p50']:6.1f} ms   p95 {figures['p95']:6.1f} ms")
    per_second = {case: round(rows / seconds) for case, seconds in ours.items()}
    print(f"rows per second through the server: {per_second}")
    ratios = {case: peer[case] / ours[case] for case in ours}
    finish("remote_store", ratios, ours, peer, {"rows": rows}, vote_ms=votes, rows_per_second=per_second)


def fill(store: AnyStore, rows: int) -> list[Prompt]:
    """Prompts with `rows` completions in all, and comparisons for the voter."""
    prompts = [Prompt(({"role": "user", "content": f"idea {i}"},)) for i in range(rows // 50)]
    store.add_prompts(prompts)
    answers = completions(prompts, rows, "first")
    store.add_completions(answers)
    by_prompt = [answers[i :: len(prompts)] for i in range(len(prompts))]
    store.add_comparisons(
        [Comparison(p.id, (a.id, b.id)) for p, mine in zip(prompts, by_prompt, strict=True)
         for a, b in zip(mine[::2], mine[1::2], strict=False)]
    )  # fmt: skip
    return prompts


def completions(prompts: list[Prompt], rows: int, label: str) -> list[Completion]:
    """As many different answers, the prompts in turn."""
    return [
        Completion(prompts[i % len(prompts)].id, f"{label} {i} {TEXT}{i * 7919 % 1009}") for i in range(rows)
    ]


def measure(
    store: AnyStore, prompts: list[Prompt], rows: int, repeats: int, tell: Callable[[str], Any]
) -> dict[str, float]:
    """Median seconds to read and to add all rows."""
    seconds: dict[str, list[float]] = {"read": [], "add": []}
    for repeat in range(repeats):
        table = record_table(completions(prompts, rows, f"more {repeat}"))
        tell("read")
        start = time.perf_counter()
        assert store.table(f"{READ} LIMIT {rows}").num_rows == rows
        seconds["read"].append(time.perf_counter() - start)
        tell("add")
        start = time.perf_counter()
        assert store.add_table("completion", table) == rows
        seconds["add"].append(time.perf_counter() - start)
        tell("alone")
        time.sleep(0.5)
    return {case: statistics.median(times) for case, times in seconds.items()}


def wait(server: "subprocess.Popen[str]") -> None:
    """Until the server says where it is."""
    assert server.stdout is not None
    for line in server.stdout:
        if re.search(r"http://\S+", line):
            return
    raise SystemExit("palate label did not start")


def p(times: list[float], share: int) -> float:
    """A percentile in milliseconds."""
    ordered = sorted(times)
    return round(1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1)


if __name__ == "__main__":
    main()
