"""What an answer is worth to online training: one or several sources, weighed and added.

    reward-1                     a reward run of this project
    reward-1=0.8 brevity.py:score=0.2
    org/some-reward-model        a sequence-classification model, from a folder or the hub
    brevity.py:score             a function (prompts, texts) -> numbers, of a Python file
    https://host/score           palate reward serve, or what answers as it does (its token: PALATE_SCORE_TOKEN)

A prompt is a list of messages, a text what the model wrote, with how it ended: "stop" or "length". Rewards of a run are
in standard deviations over its training completions, those of other sources in their own scale.
Not here: penalties of length and the KL term (ppo.py), training of rewards (palate.reward).
"""

import importlib.util
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from palate.config import UserError
from palate.data.records import Message
from palate.hardware import Hardware
from palate.models import is_run
from palate.project import Project
from palate.reward.scorers import open_scorer

AT_ONCE = 128  # texts in one request
TRIES = 5  # of a request; the pauses between them double from a second
Prompts = Sequence[Sequence[Message]]


class Source(Protocol):
    """Rewards of (prompt, text) pairs, one finite number each."""

    def score(
        self, prompts: Prompts, texts: Sequence[str], finish_reasons: Sequence[str | None] | None = None
    ) -> list[float]:
        """`finish_reasons[i] == "length"`: the text was cut."""
        ...


class Part(NamedTuple):
    """One source of the sum."""

    name: str
    weight: float


@dataclass(frozen=True)
class OnBase:
    """A reward run on the policy's own base: rollouts have its scores from the pass that all roles share."""

    pessimism: float = 0.0

    def of(self, rewards: Tensor | None, sds: Tensor | None) -> list[float]:
        """(C,) rewards, less `pessimism` standard deviations."""
        assert rewards is not None
        if self.pessimism and sds is not None:
            rewards = rewards - self.pessimism * sds
        found: list[float] = rewards.tolist()
        return found


@dataclass(frozen=True)
class Rewards:
    """The weighted sum of sources."""

    parts: tuple[Part, ...]
    sources: tuple[Source | OnBase, ...]

    def score(
        self, prompts: Prompts, texts: Sequence[str], finish_reasons: Sequence[str | None] | None = None
    ) -> list[float]:
        """One reward for each text."""
        total = [0.0] * len(texts)
        for part, source in zip(self.parts, self.sources, strict=True):
            assert not isinstance(source, OnBase), "known to rollouts alone"
            scores = source.score(prompts, texts, finish_reasons)
            check_scores(part.name, scores, len(texts))
            total = [sum_ + part.weight * score for sum_, score in zip(total, scores, strict=True)]
        return total


def parse(specification: str) -> Part:
    """`SOURCE` or `SOURCE=WEIGHT`."""
    name, found, weight = specification.rpartition("=")
    if not found or not re.fullmatch(r"-?\d+(\.\d*)?([eE]-?\d+)?", weight):
        return Part(specification, 1.0)
    return Part(name, float(weight))


def open_rewards(
    project: Project,
    parts: Sequence[Part],
    hardware: Hardware,
    pessimism: float = 0.0,
    on_base: str | None = None,
) -> Rewards:
    """Every source, ready to score. `pessimism`: standard deviations taken off the rewards of runs; `on_base`: the run
    whose adapter is on the policy's base already."""
    if not parts:
        raise UserError("name at least one source of rewards: --reward")
    sources = (
        OnBase(pessimism) if part.name == on_base else _open(project, part.name, hardware, pessimism)
        for part in parts
    )
    return Rewards(tuple(parts), tuple(sources))


def check_scores(name: str, scores: Sequence[float], wanted: int) -> None:
    """As many finite numbers as texts; else a UserError."""
    if len(scores) != wanted:
        raise UserError(f"{name} gave {len(scores)} rewards for {wanted} texts")
    for place, score in enumerate(scores):
        if not isinstance(score, (int, float)) or not math.isfinite(score):
            raise UserError(f"{name} gave {score!r} for text {place + 1} of {wanted}: a reward is a number")


def _open(project: Project, name: str, hardware: Hardware, pessimism: float) -> Source:
    """Only runs know how unsure they are: the others are taken as they are."""
    if name.startswith(("http://", "https://")):
        return Served(name)
    file, _, function = name.rpartition(":")
    if file.endswith(".py"):
        return Function(Path(file), function)
    return open_scorer(project, name, hardware, None, pessimism if is_run(project, name) else 0.0)[0]


class Function:
    """A function of a Python file: (prompts, texts), or (prompts, texts, finish_reasons), to one number per text."""

    def __init__(self, file: Path, name: str) -> None:
        self._name = f"{file}:{name}"
        found = getattr(_module(file), name, None)
        if not callable(found):
            raise UserError(f"{file} has no function {name}")
        self._function: Callable[..., Any] = found
        self._arguments = found.__code__.co_argcount if hasattr(found, "__code__") else 2

    def score(
        self, prompts: Prompts, texts: Sequence[str], finish_reasons: Sequence[str | None] | None = None
    ) -> list[float]:
        """What the function says; an error in it names the function."""
        reasons = finish_reasons if finish_reasons is not None else [None] * len(texts)
        given = [[list(prompt) for prompt in prompts], list(texts), list(reasons)][: max(2, self._arguments)]
        try:
            return [float(value) for value in self._function(*given)]
        except Exception as error:  # a stranger's code may raise anything
            raise UserError(f"{self._name} failed: {type(error).__name__}: {error}") from error


class Served:
    """`POST url` with rows of messages and completion; answers `{"rows": [{"reward": 0.8}, ...]}`."""

    def __init__(self, url: str) -> None:
        import httpx

        token = os.environ.get("PALATE_SCORE_TOKEN")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._url, self._http = url, httpx
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(300.0, connect=10.0))

    def score(
        self, prompts: Prompts, texts: Sequence[str], finish_reasons: Sequence[str | None] | None = None
    ) -> list[float]:
        """Asked in batches; a server that is gone is asked again for half a minute."""
        found: list[float] = []
        for first in range(0, len(texts), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            rows = [
                {"messages": list(prompt), "completion": text}
                for prompt, text in zip(prompts[some], texts[some], strict=True)
            ]
            found += self._ask(rows)
        return found

    def _ask(self, rows: list[dict[str, Any]]) -> list[float]:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(2 ** (attempt - 1))
            try:
                response = self._client.post(self._url, json={"rows": rows})
            except self._http.TransportError as error:
                reason = str(error)
                continue
            if response.status_code == 200:
                return self._read(response, len(rows))
            reason = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code not in (429, 502, 503, 504):
                break
        raise UserError(f"{self._url} gives no rewards: {reason}")

    def _read(self, response: Any, wanted: int) -> list[float]:
        try:
            found = [float(row["reward"]) for row in response.json()["rows"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._url} answers something else than rows of rewards: {response.text[:200]}"
            ) from error
        if len(found) != wanted:
            raise UserError(f"{self._url} gave {len(found)} rewards for {wanted} texts")
        return found


def _module(file: Path) -> ModuleType:
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    specification = importlib.util.spec_from_file_location(f"palate_reward_{file.stem}", file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # a stranger's code may raise anything
        raise UserError(f"{file} can't be run: {type(error).__name__}: {error}") from error
    return module
