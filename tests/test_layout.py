"""The shape of the house: every folder is linked, packaged and imports in one direction only."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("data", "evaluation", "labeling", "reward", "rl", "sft")
TRUNK, CONFIG = "trunk", "config"
# what a folder may import of ours; `trunk` is every module of src/palate but those that see everything, and the settings,
# which all may import
ALLOWED = {
    CONFIG: {"palate.config"},
    "data": {"data", "palate.config"},
    "labeling": {
        "labeling",
        "data",
        "palate.annotator_model",
        "palate.config",
        "palate.linear_head",
        "palate.plots",
        "palate.project",
        "palate.runs",
    },
    "sft": {"sft", "data", TRUNK},
    "reward": {"reward", "data", TRUNK},
    "rl": {"rl", "reward", "data", TRUNK},
    "evaluation": {"evaluation", "reward", "rl", "data", TRUNK},
    TRUNK: {"data", TRUNK},
}
SEE_EVERYTHING = {"palate.cli", "palate.demo", "palate.loop", "palate.__main__"}  # and import lazily


def sources() -> list[tuple[str, Path]]:
    """(folder, config or trunk, file) for every module of ours."""
    found = [(folder, path) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    found += [(CONFIG, path) for path in (ROOT / "src/palate/config").rglob("*.py")]
    trunk = [*(ROOT / "src/palate").glob("*.py"), *(ROOT / "src/palate/builtin").glob("*.py")]
    return found + [(TRUNK, path) for path in trunk]


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{a.name}" for a in node.names} if node.module == "palate" else {node.module}
            )
    return {name for name in names if name == "palate" or name.startswith("palate.")}


def place_of(module: str) -> str:
    second = module.split(".")[1] if "." in module else ""
    return second if second in FOLDERS else TRUNK


@pytest.mark.parametrize(("folder", "path"), sources(), ids=lambda v: v if isinstance(v, str) else v.name)
def test_imports_run_one_way(folder: str, path: Path) -> None:
    module = "palate." + path.stem
    if folder == TRUNK and module in SEE_EVERYTHING:
        return
    wrong = {
        name
        for name in imported(path)
        if place_of(name) not in ALLOWED[folder] and ".".join(name.split(".")[:2]) not in ALLOWED[folder]
    }
    assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_is_linked_and_packaged(folder: str) -> None:
    link = ROOT / "src/palate" / folder
    assert link.is_symlink(), f"src/palate/{folder} must be a link to ../../{folder}"
    assert link.resolve() == ROOT / folder
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert f"palate.{folder}" in setuptools["packages"]
    assert setuptools["package-dir"][f"palate.{folder}"] == folder


def test_every_package_is_packaged() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    places = {ROOT / setuptools["package-dir"][name] for name in setuptools["packages"]}
    assert places == {path.parent for _, path in sources() if path.name == "__init__.py"}


def test_files_tell_one_story() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for _, path in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350
    }
    assert not long, f"over 350 lines: {long}"


def test_torch_is_pinned_exactly() -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert "torch==2.13.0" in lock
    assert not [line for line in lock if line and not line.startswith("#") and "==" not in line]
