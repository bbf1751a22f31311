"""Annotators at work over HTTP: `palate label` against Potato, "vote -> next item", with p50, p95 and votes per second.

One annotator, 20 and 100 of them in a tight loop, and 100 who vote once every 5 s each. Each side is its real server
in a process of its own, started as its user starts it, and gets the very requests that its page sends; the client
(labeling_load_client.py) is the same for both and runs on the same cores. Sides take turns, medians over the repeats.
A ratio is Potato's p95 divided by ours.

    python benchmarks/labeling_load.py [--quick]

`--quick` runs 1 and 4 annotators for a few seconds against `palate label` alone and says that the peer was not measured.
"""

import gc
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import labeling_load_palate as palate_side
import labeling_load_potato as potato_side
import uvloop
from common import Figures, arguments, finish, medians
from labeling_load_client import SHOWN, Connection, Step, Tally, load, paced, tight

SIDES = ("ours", "peer")
CASES = ("1", "20", "100", "100_paced")
QUICK = ("1", "4")
RATIO = {"1": "tight_1", "20": "tight_20", "100": "tight_100", "100_paced": "paced_100"}
UNITS = ("p50_ms", "p95_ms", "votes_per_second", "errors")
ITEMS, PEOPLE = 3000, 100
WARM_UP, ALONE, TIGHT, PACED = 2.0, 4.0, 8.0, 25.0  # seconds
TEXT = (
    "the a quiet river stone morning light over old bridge where nobody waits and some birds turn slowly north while "
    "rain begins to fall on green fields beside long roads of red earth under wide skies"
)


def texts(n: int) -> list[tuple[str, str, str]]:
    """(prompt, answer, other answer) of ordinary length, all different."""
    rng, vocabulary = random.Random(0), TEXT.split()

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(vocabulary, k=rng.randint(low, high)))

    return [(f"Idea {i}: {words(20, 60)}", words(60, 160), words(60, 160)) for i in range(n)]


async def case(name: str, people: Sequence[Connection], step: Step, quick: bool) -> Tally:
    """One case against a running server."""
    number = int(name.partition("_")[0])
    if name.endswith("_paced"):
        return await paced(people[:number], step, PACED, random.Random(1))
    warm_up, duration = (0.5, 1.5) if quick else (1.0, ALONE) if number == 1 else (WARM_UP, TIGHT)
    return await tight(people[-number:], step, warm_up, duration)


async def measure(url: str, project: Path, side: str, cases: Sequence[str], quick: bool) -> dict[str, float]:
    """All cases against one server, one after the other."""
    module = {"ours": palate_side, "peer": potato_side}[side]
    people = await module.log_in_all(url, project, max(int(name.partition("_")[0]) for name in cases))
    figures: dict[str, float] = {}
    for name in cases:
        before = load()
        tally = await case(name, people, module.vote, quick)
        found = tally.figures(name)
        figures |= found
        print(f"{side} {name}: {found}, load {before} -> {load()}", file=sys.stderr, flush=True)
        for error in tally.errors[:SHOWN]:
            print(f"{side} {name} error: {error}", file=sys.stderr, flush=True)
    for person in people:
        person.close()
    return figures


def run_side(side: str, quick: bool) -> dict[str, float]:
    """Start the side's server on fresh data and measure its cases."""
    cases = QUICK if quick else CASES
    with tempfile.TemporaryDirectory(prefix="labeling-load-") as folder:
        module = {"ours": palate_side, "peer": potato_side}[side]
        project = module.make_project(Path(folder) / side, texts(1500 if quick else ITEMS), PEOPLE)
        with module.running(project) as url:
            gc.collect()
            gc.freeze()  # the client makes no pauses to look through what is loaded
            try:
                return uvloop.run(measure(url, project, side, cases, quick))
            finally:
                gc.unfreeze()


def alternate(sides: Sequence[str], repeats: int, quick: bool) -> dict[str, list[Figures]]:
    """The figures of every side: ours, peer, peer, ours, ..."""
    found: dict[str, list[Figures]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in sides if repeat % 2 == 0 else reversed(sides):
            found[side].append(run_side(side, quick))
    return found


def by_case(runs: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Medians over the runs, by case; of errors the sum, because one is too many."""
    cases: dict[str, dict[str, float]] = {}
    for name, value in medians(runs).items():
        case_name, _, unit = name.partition(" ")
        value = sum(run[name] for run in runs) if unit == "errors" else value
        cases.setdefault(case_name, {})[unit] = round(value, 2)
    return cases


def main() -> None:
    """Both sides in turn; a table, and the JSON line."""
    given = arguments("The annotators' app under load: palate against Potato")
    sides = (given.side,) if given.side else SIDES[:1] if given.quick else SIDES
    if "peer" in sides:
        potato_side.installed()
    found = {side: by_case(runs) for side, runs in alternate(sides, given.repeats, given.quick).items()}
    mine, theirs = found.get("ours", {}), found.get("peer", {})
    both = [name for name in mine if name in theirs]
    finish(
        "labeling_load",
        {RATIO[name]: theirs[name]["p95_ms"] / mine[name]["p95_ms"] for name in both},
        {RATIO.get(name, name): figures for name, figures in mine.items()},
        {RATIO.get(name, name): figures for name, figures in theirs.items()},
        {
            "items": ITEMS, "overlap": PEOPLE, "warm_up_seconds": WARM_UP, "tight_seconds": TIGHT,
            "paced_seconds": PACED, "repeats": given.repeats, "peer": f"potato-annotation {potato_side.VERSION}",
            "not_measured": [side for side in SIDES if side not in sides], "load_at_end": load(),
        },
        **{unit: {name: figures[unit] for name, figures in mine.items()} for unit in UNITS},
    )  # fmt: skip


if __name__ == "__main__":
    main()
