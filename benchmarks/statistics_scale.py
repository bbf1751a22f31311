"""Review at ten million votes: 5,000 annotators, 200 models, 500,000 items, made up by statistics_scale_votes.py.

In turn: how long the votes take to become facts (once; later votes take milliseconds); every screen in a fresh process,
the first time and again; its late panels; Bradley-Terry with sandwich intervals from the facts on disk, beside
evalica's Bradley-Terry (no intervals) on arrays in memory; and 100 people who vote, one vote every 5 s each, against
`palate label`, without and with a lead who opens one screen after the other.

    python benchmarks/statistics_scale.py [--quick]        # writes some 6 GB into a temporary folder
    python benchmarks/statistics_scale.py --folder DIR     # keeps the votes there for the next time

`ratios.bradley_terry` is evalica's seconds divided by ours; `seconds` is by screen.
"""

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import labeling_load_palate as palate_side
import statistics_scale_votes as votes
from common import ROOT, arguments, finish, in_turn, medians, tell
from labeling_load_client import Connection, paced

SCREENS = ("progress", "agreement", "annotators", "models", "data", "training")
PACED, QUICK_PACED = 25.0, 4.0  # seconds of voting
sys.path.insert(0, str(ROOT / "src"))


def timed(act: Any) -> tuple[float, Any]:
    """(seconds, what `act` returned)."""
    start = time.perf_counter()
    found = act()
    return time.perf_counter() - start, found


def digest(project: Path) -> dict[str, float]:
    """The facts made of nothing, then once more with nothing new."""
    from palate.data.facts import Facts
    from palate.data.store import Store

    (project / "statistics.duckdb").unlink(missing_ok=True)
    with Store(project / "palate.duckdb") as store, Facts(store) as facts:
        first, _ = timed(facts.refresh)
        again, _ = timed(facts.refresh)
        return {"seconds": first, "again_seconds": again}


def screens(project: Path) -> dict[str, float]:
    """Each screen as Review makes it, drawn: the first time, again, and its late panels."""
    from palate.data.store import Store
    from palate.labeling.review_service import Review
    from palate.labeling.statistics import report
    from palate.labeling.statistics.scope import Scope

    figures: dict[str, float] = {}
    with Store(project / "palate.duckdb") as store:
        review, scope = Review(store), Scope()
        review.warm_up()
        figures["opened"], _ = timed(lambda: review.choices().result())
        try:
            for screen in SCREENS:
                figures[screen], found = timed(lambda name=screen: review.section(name, scope).result())
                figures[f"{screen} again"], _ = timed(
                    lambda name=screen: review.section(name, scope).result()
                )
                for panel in late_panels(found.shown):
                    seconds, _ = timed(lambda name=screen, id=panel: review.late(name, id, scope).result())
                    figures[f"{screen} late {panel}"] = seconds
        finally:
            review.close()
    assert set(SCREENS) <= set(report.SECTIONS)
    return figures


def late_panels(shown: Any) -> list[str]:
    """The ids of the panels of a drawn section that follow later."""
    return [drawn.panel.id for drawn in shown.panels if drawn.panel.late]


def bradley_terry(project: Path) -> dict[str, float]:
    """From the facts on disk to strengths with sandwich intervals. Imports don't count, here as there."""
    import scipy.sparse.csgraph  # noqa: F401 - loaded at its first use

    from palate.data.facts import Facts
    from palate.data.store import Store
    from palate.labeling.statistics import models_section
    from palate.labeling.statistics.scope import Scope

    with Store(project / "palate.duckdb") as store, Facts(store) as facts:
        facts.value("SELECT count(*) FROM judgement")
        seconds, found = timed(lambda: models_section.strengths(facts, Scope()))
        return {"seconds": seconds, "models": len(found.beta)}


def evalica(project: Path) -> dict[str, float]:
    """Evalica's Bradley-Terry, ties as half wins, on arrays that are in memory already."""
    import evalica
    import numpy as np

    from palate.data.facts import Facts
    from palate.data.store import Store

    with Store(project / "palate.duckdb") as store, Facts(store) as facts:
        found = facts.columns(
            "SELECT u.model_a, u.model_b, sign(j.grade)::TINYINT AS won FROM judgement j JOIN unit u ON u.code = j.unit "
            "WHERE NOT j.again AND NOT j.adjudicated"
        )
    won = found["won"]
    outcomes = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw]
    winners = [outcomes[code] for code in np.where(won > 0, 0, np.where(won < 0, 1, 2)).tolist()]
    xs, ys = found["model_a"].tolist(), found["model_b"].tolist()
    seconds, scores = timed(lambda: evalica.bradley_terry(xs, ys, winners))
    return {"seconds": seconds, "models": len(scores.scores), "votes": len(xs)}


def live(project: Path, seconds: float) -> dict[str, float]:
    """p50 and p95 of a vote while nobody looks, and while a lead opens screen after screen."""
    lead = json.loads((project / "lead.json").read_text())
    with palate_side.running(project) as url:
        return asyncio.run(_voting(url, project, lead, seconds))


async def _voting(url: str, project: Path, lead: dict[str, str], seconds: float) -> dict[str, float]:
    people = await palate_side.log_in_all(url, project, votes.VOTERS)
    alone = await paced(people, palate_side.vote, seconds, random.Random(1))
    looking = asyncio.create_task(_look(url, lead))
    watched = await paced(people, palate_side.vote, seconds, random.Random(2))
    looking.cancel()
    figures = {**alone.figures("alone"), **watched.figures("watched"), "server_mb": _memory(project)}
    return {name.replace(" ", "_"): value for name, value in figures.items()}


async def _look(url: str, cookies: dict[str, str]) -> None:
    """A lead who goes from screen to screen, whole, the late panels too."""
    lead = Connection(url)
    lead.cookies = cookies
    while True:
        for screen in SCREENS:
            await lead.request("GET", f"/review/{screen}")
            await lead.request("GET", f"/api/v1/statistics?section={screen}")


def _memory(project: Path) -> float:
    """Peak resident megabytes of the server's process."""
    found = subprocess.run(
        ["pgrep", "-f", f"label --project {project} "], capture_output=True, text=True, check=True
    )
    status = Path(f"/proc/{found.stdout.split()[0]}/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def work(side: str, project: Path, quick: bool) -> None:
    """One measurement in this process."""
    if side == "live":
        tell(live(project, QUICK_PACED if quick else PACED))
    else:
        act = {"digest": digest, "screens": screens, "palate": bradley_terry, "evalica": evalica}[side]
        tell(act(project))


def main() -> None:
    """Everything, one after the other; a table, and the JSON line."""
    given = arguments("Review at ten million votes")
    if given.side:
        work(given.side, given.folder, given.quick)
        return
    size = votes.QUICK if given.quick else votes.Size()
    with tempfile.TemporaryDirectory(prefix="statistics-scale-") as scratch:
        project = (given.folder or Path(scratch)) / f"votes-{size.votes}"
        if not (project / "sessions.json").exists():
            votes.make_project(project, size)
        more = ["--folder", str(project), *(["--quick"] if given.quick else [])]
        script = str(Path(__file__))
        (made,) = in_turn(script, ["digest"], 1, *more)["digest"]
        shown = medians(in_turn(script, ["screens"], given.repeats, *more)["screens"])
        sides = in_turn(script, ["palate", "evalica"], given.repeats, *more)
        (voting,) = in_turn(script, ["live"], 1, *more)["live"]
    ours, peer = medians(sides["palate"]), medians(sides["evalica"])
    finish(
        "statistics_scale",
        {"bradley_terry": peer["seconds"] / ours["seconds"]},
        {"bradley_terry": ours, "screens": shown, "digest": made, "live": voting},
        {"bradley_terry": peer},
        {"votes": size.votes, "annotators": size.annotators, "models": size.models, "items": size.items,
         "repeats": given.repeats, "peer": "evalica"},
        seconds={**{name: round(value, 3) for name, value in shown.items() if name != "peak_rss_mb"},
                 "bradley_terry": round(ours["seconds"], 3)},
        peak_mb=max(shown["peak_rss_mb"], made["peak_rss_mb"], voting["server_mb"]),
    )  # fmt: skip


if __name__ == "__main__":
    main()
