"""How fast and in how much memory `palate import` takes a million preferences, beside two plain readers.

    python benchmarks/import_scale.py            # 1,000,000 rows, 0.6 GB
    python benchmarks/import_scale.py --quick    # 20,000 rows: shows that it runs, proves nothing

The peers only copy the file's rows: `datasets` (load_dataset("json"), then Parquet) and DuckDB (read_json into a
table). Palate makes seven records of a row, with ids by content, keys and duplicates checked, in one transaction.
So a ratio below 1 is expected; what must hold is the memory: under 2,000 MB, workers included.
"""

import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, finish, in_turn, medians

SIDES = ("palate", "datasets", "duckdb")
LIMIT_MB = 2000


def write_rows(path: Path, rows: int) -> None:
    """A JSONL file of preferences: made-up words, about 570 bytes a row, every prompt its own."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(5_000)]

    def text(n: int) -> str:
        return " ".join(rng.choices(words, k=n))

    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {"prompt": f"{text(20)} {number}", "chosen": text(30), "rejected": text(30)}
            file.write(json.dumps(row) + "\n")


def palate(file: Path, folder: Path) -> tuple[int, int]:
    """(votes, worker processes) of an import into a fresh project."""
    from palate import importing
    from palate.config import ImportConfig
    from palate.data.importing import BIG
    from palate.data.workers import cores
    from palate.project import Project

    done = importing.run(Project.create(folder / "project"), ImportConfig((file,)))
    return done.metrics["vote_new"], cores() if file.stat().st_size >= BIG else 0


def datasets(file: Path, folder: Path) -> tuple[int, int]:
    """The same rows as an Arrow cache and a Parquet file."""
    import datasets

    datasets.disable_progress_bars()
    data = datasets.load_dataset("json", data_files=str(file), cache_dir=str(folder / "cache"), split="train")
    data.to_parquet(folder / "rows.parquet")
    return data.num_rows, 0


def duckdb(file: Path, folder: Path) -> tuple[int, int]:
    """The same rows as one table without keys."""
    import duckdb

    with duckdb.connect(str(folder / "rows.duckdb")) as con:
        con.execute(f"CREATE TABLE pairs AS SELECT * FROM read_json('{file}', format = 'newline_delimited')")
        return con.execute("SELECT count(*) FROM pairs").fetchall()[0][0], 0


def work(side: str, file: Path) -> None:
    """One measured import in this process; its last line is what it cost."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        start = time.perf_counter()
        rows, workers = {"palate": palate, "datasets": datasets, "duckdb": duckdb}[side](file, Path(folder))
        seconds = time.perf_counter() - start
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes on Linux
    # every worker is counted with the peak of the largest, all at the same moment: an upper bound
    peak = (own.ru_maxrss + workers * children.ru_maxrss) * unit / 1e6
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    figures = {"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "peak_rss_mb": peak}
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


def main() -> None:
    """All sides in turn on one file."""
    given = arguments("palate import of preferences, beside plain readers")
    if given.side:
        work(given.side, given.folder)
        return
    rows = 20_000 if given.quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "preferences.jsonl"
        write_rows(file, rows)
        megabytes = round(file.stat().st_size / 1e6)
        found = in_turn(__file__, SIDES, given.repeats, "--folder", str(file))
    cost = {side: medians(found[side]) for side in SIDES}
    ours = cost.pop("palate")
    assert {figures["rows"] for figures in (ours, *cost.values())} == {rows}
    memory = (
        f"{ours['peak_rss_mb']:,.0f} MB at the peak, {'under' if ours['peak_rss_mb'] < LIMIT_MB else 'OVER'}"
    )
    print(f"{rows / ours['seconds']:,.0f} rows/s; {memory} the {LIMIT_MB:,} MB that are allowed")
    finish(
        "import_scale",
        {peer: figures["seconds"] / ours["seconds"] for peer, figures in cost.items()},
        {
            **dict.fromkeys(cost, ours),
            "rows_per_second": rows / ours["seconds"],
            "peak_rss_mb": ours["peak_rss_mb"],
        },
        cost,
        {
            "rows": rows,
            "megabytes": megabytes,
            "repeats": given.repeats,
            "load": round(os.getloadavg()[0], 1),
        },
    )


if __name__ == "__main__":
    main()
