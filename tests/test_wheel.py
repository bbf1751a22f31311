"""The wheel stands on its own: built, installed in an empty environment, used from another folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ROUND_TRIP = """
from pathlib import Path
from palate.data.records import Prompt
from palate.data.store import Store
import palate, palate.builtin

prompt = Prompt(({"role": "user", "content": "hello"},))
with Store(Path("x.duckdb")) as store:
    assert store.add_prompts([prompt]) == 1
with Store(Path("x.duckdb")) as store:
    assert store.rows("SELECT id FROM prompt") == [{"id": prompt.id}]
print(Path(palate.__file__).parent)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.slow
def test_wheel_in_an_empty_environment(tmp_path: Path) -> None:
    clone, elsewhere = tmp_path / "clone", tmp_path / "elsewhere"
    elsewhere.mkdir()
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, tracked):  # what a clone of this tree would hold, links as links
        source, target = ROOT / name, clone / name
        if not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.write_bytes(source.read_bytes())
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", clone, cwd=elsewhere)
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"palate"}
    assert len(names) == len(set(names))
    wanted = (
        "py.typed",
        "config/core.py",
        "data/schema.sql",
        "builtin/model.safetensors",
        "evaluation/report.html.jinja",
    )
    for part in wanted:
        assert f"palate/{part}" in names

    # dependencies come from this environment (gigabytes otherwise); the package itself only from the wheel
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=elsewhere)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=elsewhere)
    here = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    for entry in here.iterdir():
        if not (site / entry.name).exists() and "palate" not in entry.name:
            (site / entry.name).symlink_to(entry)
    assert "usage: palate" in run(tmp_path / "venv/bin/palate", "--help", cwd=elsewhere)
    where = run(python, "-c", ROUND_TRIP, cwd=elsewhere).strip()
    assert Path(where) == site / "palate"
