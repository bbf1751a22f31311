"""Settings from YAML: every mistake is one line that names the file and the key."""

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from palate import config as settings
from palate.cli import COMMANDS
from palate.config import EvalConfig, SampleConfig, SftConfig, UserError, as_dict, from_mapping, read_yaml


def test_read_yaml(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("sft:\n  epochs: 3\n  base: größe\n", encoding="utf-8")
    assert read_yaml(path) == {"sft": {"epochs": 3, "base": "größe"}}
    path.write_text("# nothing yet\n")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("sft: [1, 2", "is not valid YAML"),
        ("sft:\n\tepochs: 1\n", "is not valid YAML"),
        ("- sft\n- dpo\n", "must hold a mapping of settings, it holds a list"),
        ("just words", "must hold a mapping of settings, it holds a str"),
    ],
)
def test_yaml_errors_are_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match="recipe.yaml") as error:
        read_yaml(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_invalid_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("sft:\n  epochs: 1\n  base: [\n")
    with pytest.raises(UserError, match="line 4"):
        read_yaml(path)


def test_from_mapping() -> None:
    found = from_mapping(EvalConfig, {"models": ["a", "b"], "prompts": 3, "project": "x"}, "r.yaml")
    assert found == EvalConfig(models=("a", "b"), prompts=3, project=Path("x"))
    assert from_mapping(SampleConfig, {"temperature": [0.5, 1.0]}, "r.yaml").temperature == (0.5, 1.0)
    with pytest.raises(UserError, match=r"r.yaml, section sft: unknown setting 'epoch'; known are .*epochs"):
        from_mapping(SftConfig, {"epoch": 3}, "r.yaml, section sft")


def test_as_dict_is_plain_json() -> None:
    for kind, _ in COMMANDS.values():
        required = {"files": (Path("a.jsonl"),), "file": Path("b.jsonl"), "backup": "latest"}
        names = {field.name for field in fields(kind)}
        made = kind(**{name: value for name, value in required.items() if name in names})
        assert json.loads(json.dumps(as_dict(made), default=str))


@pytest.mark.parametrize("kind", [kind for kind, _ in COMMANDS.values()])
def test_configs_are_frozen_and_documented(kind: Any) -> None:
    source = Path(settings.__file__).read_text(encoding="utf-8")
    block = source[source.index(f"class {kind.__name__}:") :].split("@dataclass")[0]
    for field in fields(kind):
        after = block[block.index(f"    {field.name}:") :]
        assert '\n    """' in after.split("\n\n")[0], f"{kind.__name__}.{field.name} has no sentence"
    required = {"files": (), "file": Path("x"), "backup": "latest"}
    names = {field.name for field in fields(kind)}
    made = kind(**{name: value for name, value in required.items() if name in names})
    with pytest.raises(FrozenInstanceError):
        made.project = Path("y")
