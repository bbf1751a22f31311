"""Endpoints of the live screen: which OpenAI-compatible servers are asked, and how, from a YAML file.

A key never stands in the file: `key_env` names the environment variable that holds it. Nothing of an endpoint
ever reaches a browser.

    - name: ours
      url: http://localhost:8000/v1
      model: runs/dpo-3
      samples: 2
    - name: theirs
      url: https://models.example.org/v1
      model: large-instruct
      key_env: THEIR_KEY
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from palate.config import UserError

MOST_ANSWERS = 9  # of one question: a comparison takes 2 to 9


@dataclass(frozen=True)
class Endpoint:
    """One model at one server, and how it is sampled."""

    name: str
    """What leads call it; stored with its answers."""
    url: str
    """The base address, up to and including /v1."""
    model: str
    """The model's name at that server; the answers are stored under it."""
    key_env: str | None = None
    """The environment variable that holds the key; none for servers without keys."""
    temperature: float = 1.0
    """0 (always the same answer) to 2."""
    top_p: float = 1.0
    """Sample from the most likely tokens that make up this much probability."""
    max_tokens: int = 512
    """The longest answer, in tokens."""
    samples: int = 1
    """How many answers of a question come from here, 1 to 9."""
    timeout_s: float = 120.0
    """An answer that takes longer, from the question to its end, is given up."""
    system: str | None = None
    """A system message that only this endpoint gets."""

    @property
    def key(self) -> str | None:
        """The key, read from the environment at the moment of asking."""
        return os.environ.get(self.key_env) if self.key_env else None

    @property
    def sampling(self) -> dict[str, Any]:
        """What is stored of the sampling."""
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}


_NUMBERS = {  # field: lowest, highest
    "temperature": (0.0, 2.0),
    "top_p": (0.001, 1.0),
    "max_tokens": (1, 32_768),
    "samples": (1, MOST_ANSWERS),
    "timeout_s": (1.0, 3600.0),
}
_TEXTS = {"name": 60, "url": 2_000, "model": 300, "key_env": 200, "system": 20_000}  # field: most characters
_NEEDED = ("name", "url", "model")
_FIELDS = [f.name for f in fields(Endpoint)]


def endpoints_of(path: Path | None, folder: Path) -> tuple[Endpoint, ...]:
    """The endpoints in `path`, else those in the project's `endpoints.yaml`; none when there is no such file."""
    if path is None:
        path = folder / "endpoints.yaml"
        if not path.exists():
            return ()
    return read_endpoints(path)


def read_endpoints(path: Path) -> tuple[Endpoint, ...]:
    """The endpoints in a YAML file; a UserError names the entry and the field that is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the endpoints in {path} can't be read: {error}") from error
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML: {line[:200]}") from error
    if not isinstance(content, list) or not content:
        raise UserError(f"{path} must hold a list of endpoints, each with {', '.join(_NEEDED)}")
    found = [_endpoint(f"{path}, entry {i}", entry) for i, entry in enumerate(content, 1)]
    first: dict[str, int] = {}
    for i, endpoint in enumerate(found, 1):
        if first.setdefault(endpoint.name, i) != i:
            raise UserError(
                f"{path}, entry {i}: name '{endpoint.name}' is taken by entry {first[endpoint.name]}"
            )
    if sum(endpoint.samples for endpoint in found) < 2:
        raise UserError(
            f"{path}, entry 1: samples is 1 and there is no other endpoint; a comparison takes two answers, "
            "so raise samples or add an endpoint"
        )
    return tuple(found)


def _endpoint(where: str, entry: Any) -> Endpoint:
    if not isinstance(entry, dict):
        raise UserError(f"{where} must be a section with {', '.join(_NEEDED)}, it is {str(entry)[:60]!r}")
    for name in entry:
        if str(name).lower() in ("key", "api_key", "apikey", "token", "authorization"):
            raise UserError(
                f"{where}: '{name}' does not belong in the file; put the key into an environment variable "
                "and its name under key_env"
            )
        if name not in _FIELDS:
            raise UserError(f"{where}: there is no field '{name}'; the fields are {', '.join(_FIELDS)}")
    for name in _NEEDED:
        if entry.get(name) is None:
            raise UserError(f"{where}: {name} is missing")
    given = {
        name: _checked(f"{where}: {name}", name, value) for name, value in entry.items() if value is not None
    }
    endpoint = Endpoint(**{**given, "url": _base(f"{where}: url", given["url"])})
    if endpoint.key_env is not None and not endpoint.key:
        raise UserError(
            f"{where}: key_env names {endpoint.key_env}, and this environment variable is not set; "
            "set it before palate label starts"
        )
    return endpoint


def _checked(where: str, name: str, value: Any) -> Any:
    """The value of a field, or a UserError that says what it may be."""
    if name in _TEXTS:
        if not isinstance(value, str) or not value.strip() or len(value) > _TEXTS[name]:
            raise UserError(
                f"{where} must be a text of 1 to {_TEXTS[name]} characters, it is {str(value)[:60]!r}"
            )
        return value.strip()
    lowest, highest = _NUMBERS[name]
    whole = isinstance(lowest, int)
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not lowest <= value <= highest:
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{where} must be {kind} from {lowest:g} to {highest:g}, it is {str(value)[:60]!r}")
    return value if whole else float(value)


def _base(where: str, url: str) -> str:
    if "@" in url:
        raise UserError(f"{where} must not hold a password; put it into an environment variable, see key_env")
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment:
        raise UserError(f"{where} must be like http://localhost:8000/v1, it is {url!r}")
    if parts.path.rstrip("/").endswith("/completions"):
        raise UserError(f"{where} is the address up to /v1, without /chat/completions; it is {url!r}")
    return url.rstrip("/")


def headers_of(endpoint: Endpoint) -> Mapping[str, str]:
    """The headers of a request to an endpoint."""
    key = endpoint.key
    return {"Accept": "text/event-stream, application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
