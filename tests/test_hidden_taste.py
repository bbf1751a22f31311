"""The hidden taste stays hidden: no training stage can read it, and none needs to.

Two proofs. By reading: no module that a training stage imports, directly or not, imports `palate.data.taste`.
By running: SFT, sampling, reward and DPO run to the end in a process in which importing the taste raises, and
no row they froze holds anything but texts, ids and what votes say.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[1]
TRAINING = ("palate.sft.train", "palate.sampling", "palate.reward.train", "palate.rl.dpo", "palate.project")

LOOP = """
import sys
from pathlib import Path

folder, stages = Path(sys.argv[1]), sys.argv[2:]

class Bar:  # an import hook: whoever asks for the taste in this process is stopped
    def find_spec(self, name, path=None, target=None):
        if name == "palate.data.taste":
            raise RuntimeError("a training stage imported the hidden taste")

if "--barred" in stages:
    sys.meta_path.insert(0, Bar())
from palate.cli import main
if "simulate" in stages:
    main(["simulate", "--taste", "vivid", "--project", str(folder)])
else:
    small = ["--project", str(folder)]
    if "first" in stages:
        main(["init", str(folder)])
        main(["import", str(folder / "rows.jsonl"), *small])
        main(["sft", "--epochs", "1", *small])
        main(["sample", "-k", "3", "--max-new-tokens", "24", *small])
    else:
        main(["reward", *small])
        main(["dpo", "--epochs", "1", *small])
"""


def file_of(module: str) -> Path:
    path = ROOT / "src" / Path(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def test_no_training_module_imports_it() -> None:
    seen: set[str] = set()
    todo = list(TRAINING)
    while todo:
        module = todo.pop()
        if module in seen or not file_of(module).exists():
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(file_of(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                todo += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        todo = [name for name in todo if name.split(".")[0] == "palate"]
    assert {"palate.data.store", "palate.models"} <= seen  # the walk went somewhere
    assert not {name for name in seen if name.startswith("palate.data.taste")}


@pytest.mark.slow
def test_training_runs_with_the_taste_barred(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Write an image prompt for: a {colour} {thing}", "completion": f"{colour} {thing}, soft light"}
        for colour in ("red", "blue", "grey", "golden")
        for thing in ("boat", "lamp", "cat", "door", "tree")
    ]  # fmt: skip
    (tmp_path / "p").mkdir()
    (tmp_path / "p/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stages in (["first", "--barred"], ["simulate"], ["second", "--barred"]):
        command = [sys.executable, "-c", LOOP, str(tmp_path / "p"), *stages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    frozen = sorted((tmp_path / "p/runs").glob("*/data/*.parquet"))
    assert {path.parts[-3] for path in frozen} >= {"sft-1", "reward-1", "dpo-1"}
    for path in frozen:
        names = {name for name in pq.read_schema(path).names}
        assert not {n for n in names if "gold" in n or "taste" in n}, path
