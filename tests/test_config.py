"""Settings from YAML: every mistake is one line that names the file and the key."""

import ast
import inspect
import json
import re
from dataclasses import FrozenInstanceError, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from palate.cli import COMMANDS, parse
from palate.config import (
    EvalConfig,
    OnlineConfig,
    PpoConfig,
    SampleConfig,
    SftConfig,
    UserError,
    as_dict,
    from_mapping,
    of_run,
    read_yaml,
)


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


def test_resumed_has_its_own_settings_here() -> None:
    once = PpoConfig(Path("there"), recipe=Path("r.yaml"), reward=("reward-1",), k=3, device="cuda")
    recorded = as_dict(once)
    asked = PpoConfig(Path("here"), resume="ppo-2", k=8, device="cpu")
    found = of_run(recorded, asked, "ppo-2")
    assert found == PpoConfig(Path("here"), reward=("reward-1",), k=3, device="cpu")
    assert recorded["project"] == "there"
    with pytest.raises(UserError, match="ppo-2: unknown setting 'epoch'"):
        of_run({**recorded, "epoch": 3}, asked, "ppo-2")


def sentence(kind: type, name: str) -> str:
    """What the source says under a field, where it was declared last; empty when nothing stands there."""
    for owner in kind.__mro__:
        if name in inspect.get_annotations(owner):  # its own ones, not its bases'
            lines = ast.parse(inspect.getsource(owner)).body[0].body  # type: ignore[attr-defined]
            for line, after in pairwise([*lines, ast.Pass()]):
                if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == name:
                    said = after.value if isinstance(after, ast.Expr) else None
                    return str(said.value) if isinstance(said, ast.Constant) else ""
    raise AssertionError(f"{kind.__name__} has no field {name}")


def letters(text: str) -> str:
    """A text without the frame and the breaks of lines that help puts in."""
    return "".join(re.findall(r"\w", text))


@pytest.mark.parametrize("command", ["ppo", "rloo", "grpo"])
def test_help_says_what_shared_settings_are(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind, _ = COMMANDS[command]
    with pytest.raises(SystemExit):
        parse(kind, command, ["--help"])
    printed = letters(capsys.readouterr().out)
    for field in fields(kind):
        assert letters(sentence(kind, field.name)) in printed, field.name
    assert sentence(kind, "seed") == sentence(OnlineConfig, "seed")
    assert f"`{command}:`" in sentence(kind, "recipe")


@pytest.mark.parametrize("kind", [kind for kind, _ in COMMANDS.values()])
def test_configs_are_frozen_and_documented(kind: Any) -> None:
    for field in fields(kind):
        assert sentence(kind, field.name), f"{kind.__name__}.{field.name} has no sentence"
    required = {"files": (), "file": Path("x"), "backup": "latest"}
    names = {field.name for field in fields(kind)}
    made = kind(**{name: value for name, value in required.items() if name in names})
    with pytest.raises(FrozenInstanceError):
        made.project = Path("y")
