"""What every command's settings need: errors, names, and the way from YAML and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16"]
BUILTIN = "builtin"  # names the model that comes with the package
Config = TypeVar("Config")
POLICIES = ("dpo", "ppo", "rloo", "grpo", "kto")  # stages that make a policy from an SFT run


class UserError(Exception):
    """What went wrong, the value, and what to do: printed as one line, never as a traceback."""


class Paused(UserError):
    """Nothing went wrong: it is somebody else's turn, and the message says whose. The run is stopped, not failed."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or a UserError that names the file and the line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of settings, it holds a {type(content).__name__}")
    return content


def from_mapping(kind: type[Config], values: dict[str, Any], where: str) -> Config:
    """A config with some fields taken from YAML; an unknown or ill-typed key is a UserError."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown setting '{key}'; known are {', '.join(sorted(known))}")
    clean: dict[str, Any] = {}
    for key, value in values.items():
        annotation = str(known[key].type)
        if "tuple" in annotation and isinstance(value, list):
            value = tuple(value)
        if "Path" in annotation and isinstance(value, str):
            value = Path(value)
        clean[key] = value
    return kind(**clean)


def as_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values, for a run's record."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}


def of_run(recorded: Mapping[str, Any], asked: Config, where: str) -> Config:
    """The settings that a stopped run goes on with: its own, on this machine's folder and device (those of `asked`)."""
    own = from_mapping(type(asked), dict(recorded), where)
    return replace(own, project=asked.project, recipe=None, device=asked.device)  # type: ignore[attr-defined,type-var]
