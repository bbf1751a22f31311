"""How fast and in how much memory `palate import` takes a large preference file, beside two plain readers.

    python benchmarks/import_scale.py                # 1,000,000 rows, about 0.6 GB
    python benchmarks/import_scale.py --quick        # 20,000 rows: shows that it runs, proves nothing

The peers only copy the file's rows: `datasets` (load_dataset("json"), then Parquet) and DuckDB (read_json into a
table). Palate makes six kinds of records out of them, with ids by content, keys and duplicates checked, in one
transaction. So a ratio below 1 is expected; what must hold is the memory. Each runs in a process of its own.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS = ("datasets", "duckdb")
LIMIT_MB = 2000  # palate's peak must stay below this at a million rows


def write_rows(path: Path, rows: int, seed: int) -> None:
    """A JSONL file of preferences: made-up words, about 570 bytes a row, every prompt its own."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(5_000)]

    def text(n: int) -> str:
        return " ".join(rng.choices(words, k=n))

    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {"prompt": f"{text(20)} {number}", "chosen": text(30), "rejected": text(30)}
            file.write(json.dumps(row) + "\n")


def work(what: str, file: Path, folder: Path) -> None:
    """One measured import, in this process; prints what it cost as JSON."""
    peak_mb = _peak_mb(resource.RUSAGE_SELF)  # what the interpreter itself takes, to be seen beside the peak
    start, began = time.perf_counter(), time.process_time()
    if what == "palate":
        from palate import importing
        from palate.config import ImportConfig
        from palate.data.workers import cores
        from palate.project import Project

        project = Project.create(folder / "project")
        done = importing.run(project, ImportConfig((file,)))
        rows, workers = done.metrics["vote_new"], cores()
    elif what == "datasets":
        import datasets

        datasets.disable_progress_bars()
        data = datasets.load_dataset(
            "json", data_files=str(file), cache_dir=str(folder / "cache"), split="train"
        )
        data.to_parquet(folder / "rows.parquet")
        rows, workers = data.num_rows, 0
    else:
        import duckdb

        with duckdb.connect(str(folder / "rows.duckdb")) as con:
            con.execute(
                f"CREATE TABLE rows AS SELECT * FROM read_json('{file}', format = 'newline_delimited')"
            )
            rows, workers = con.execute("SELECT count(*) FROM rows").fetchall()[0][0], 0
    seconds = time.perf_counter() - start
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - began + children.ru_utime + children.ru_stime,
        # every worker is counted with the peak of the largest: an upper bound
        "peak_mb": _peak_mb(resource.RUSAGE_SELF) + workers * _peak_mb(resource.RUSAGE_CHILDREN),
        "start_mb": peak_mb,
        "rows": rows,
    }
    print(json.dumps(cost))


def _peak_mb(who: int) -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes on Linux
    return resource.getrusage(who).ru_maxrss * unit / 1e6


def measure(what: str, file: Path, folder: Path) -> dict[str, float]:
    """`work` in a fresh process and a fresh folder."""
    here = folder / what
    here.mkdir()
    command = [sys.executable, __file__, "--work", what, "--file", str(file), "--folder", str(here)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{what} failed: {done.stderr[-2000:]}")
        cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return cost
    finally:
        shutil.rmtree(here)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", choices=("palate", *PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.file, options.folder)
        return
    rows = 20_000 if options.quick else options.rows
    runs: dict[str, list[dict[str, float]]] = {what: [] for what in ("palate", *PEERS)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "preferences.jsonl"
        write_rows(file, rows, options.seed)
        for _ in range(options.repeats):
            for what, found in runs.items():  # in turn, so that a busy machine is unfair to all
                found.append(measure(what, file, folder))
        megabytes = file.stat().st_size / 1e6
    cost = {
        what: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for what, found in runs.items()
    }
    print(
        f"{rows:,} preferences, {megabytes:.0f} MB, {options.repeats} repeat(s), load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':<10}{'rows/s':>10}{'seconds':>10}{'CPU s':>10}{'peak MB':>10}")
    for what, figures in cost.items():
        speed = rows / figures["seconds"]
        print(
            f"{what:<10}{speed:>10,.0f}{figures['seconds']:>10.1f}{figures['cpu_seconds']:>10.1f}{figures['peak_mb']:>10,.0f}"
        )
    ours = cost["palate"]
    settings: dict[str, Any] = {
        "rows": rows, "megabytes": round(megabytes), "repeats": options.repeats, "seed": options.seed,
        "cores": os.cpu_count(), "load": os.getloadavg()[0], "machine": platform.machine(),
        "date": date.today().isoformat(), "memory_limit_mb": LIMIT_MB, "memory_held": ours["peak_mb"] < LIMIT_MB,
        "versions": {name: version(name) for name in ("duckdb", "pyarrow", "datasets")},
    }  # fmt: skip
    result = {
        "bench": "import_scale",
        "ratios": {peer: cost[peer]["seconds"] / ours["seconds"] for peer in PEERS},
        "ours": {**ours, "rows_per_second": rows / ours["seconds"]},
        "peer": {peer: cost[peer] for peer in PEERS},
        "settings": settings,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
