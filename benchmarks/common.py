"""What the benchmarks share: sides in turn in processes of their own, medians, one table, one JSON line.

    python benchmarks/NAME.py            the figures that count (benchmarks/RESULTS.md)
    python benchmarks/NAME.py --quick    a smoke run for the tests

A script measures one side when it is called with `--side NAME` and prints its figures with `tell`; called without,
it runs every side in turn, several times, and prints ratios of the medians. Machines are noisy: only the ratio
within one run means something.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from palate import environment

Figures = dict[str, float]

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "palate-benchmarks"


def arguments(description: str) -> argparse.Namespace:
    """--quick, --repeats, and what the script calls itself with: --side, --case, --folder, --seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, once, proves nothing")
    parser.add_argument("--repeats", type=int, help="runs of each side; default 3, with --quick 1")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)  # the number of the repeat
    given = parser.parse_args()
    given.repeats = given.repeats or (1 if given.quick else 3)
    return given


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16; one that does not emulates it, some twenty times slower."""
    import torch

    from palate.hardware import probe

    return probe("cpu").dtype == torch.bfloat16


def tell(figures: dict[str, Any]) -> None:
    """A side's last word: its figures, and its peak memory in MB."""
    print(json.dumps({**figures, "peak_rss_mb": round(peak_bytes() / 1e6)}))


def peak_bytes() -> int:
    """The most memory this process has had. Linux's ru_maxrss begins with what the process that started it had, so not that."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_turn(
    script: str, sides: Sequence[str], repeats: int, *more: str, python: Mapping[str, Path] | None = None
) -> dict[str, list[Figures]]:
    """The figures of every side, measured in alternation (ours, peer, ours, peer, ...); `python`: interpreters of sides that
    need an environment of their own. A side is told its repeat as `--seed`."""
    found: dict[str, list[Figures]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in sides if repeat % 2 == 0 else reversed(sides):  # neither side always runs first
            found[side].append(
                _measure(script, side, [*more, "--seed", f"{repeat}"], (python or {}).get(side))
            )
    return found


def medians(figures: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return {name: statistics.median(run[name] for run in figures) for name in figures[0]}


def finish(
    bench: str,
    ratios: dict[str, float],
    ours: dict[str, Any],
    peer: dict[str, Any],
    settings: dict[str, Any],
    **more: Any,
) -> None:
    """A table of case, ours, peer and ratio (peer's cost / ours: over 1 is ahead), then the JSON line.

    `more` are fields of the JSON line that other benchmarks do not have.
    """
    width = max([12, *(len(case) for case in ratios)])
    print(f"\n{bench}\n{'case':<{width}} {'ratio':>8}   ours / peer")
    for case, ratio in ratios.items():
        print(f"{case:<{width}} {ratio:>7.2f}x   {_short(ours.get(case))} / {_short(peer.get(case))}")
    from importlib.metadata import version

    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": version("torch"),
    }
    rounded = {case: round(ratio, 3) for case, ratio in ratios.items()}
    print(
        json.dumps(
            {
                "bench": bench,
                "ratios": rounded,
                "ours": ours,
                "peer": peer,
                "settings": {**settings, **machine},
                **more,
            }
        )
    )


def kept(log: Path, key: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """One finished part of a long benchmark: `key` and what `make` found, from the JSON lines in `log` if it is there."""
    if log.exists():
        for line in log.read_text().splitlines():
            known: dict[str, Any] = json.loads(line)
            if key.items() <= known.items():
                return known
    found = {**key, **make()}
    with log.open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(json.dumps(found)[:600], flush=True)
    return found


def in_a_folder(make: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `make(folder, *arguments)` returns, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory() as place:
        return make(Path(place), *arguments)


def own_environment(name: str, *packages: str) -> Path:
    """The interpreter of an environment that has our packages, and these exact ones before them (pip's notation)."""
    folder = CACHE / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (folder / "complete").exists():
        print(f"  installing {' '.join(packages)} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, *packages], check=True, stdout=sys.stderr)
        own = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"]
        (Path(own) / "zz_ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        (folder / "complete").touch()
    return python


def _measure(script: str, side: str, more: Sequence[str], python: Path | None = None) -> Figures:
    source = str(ROOT / "src")
    variables = {
        **environment.VARIABLES,  # as the palate command sets them, for both sides
        **os.environ,
        "PYTHONPATH": os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HF_HUB_OFFLINE": "1",
    }
    command = [str(python or sys.executable), script, "--side", side, *more]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"  {side}: {_short(figures)}", file=sys.stderr, flush=True)
    return figures


def _short(figures: Any) -> str:
    if isinstance(figures, dict):
        return ", ".join(
            f"{name} {value:,.4g}" if isinstance(value, int | float) else f"{name} {value}"
            for name, value in figures.items()
        )
    return "-" if figures is None else f"{figures}"
