"""The records everything is made of: frozen dataclasses, one per table of `schema.sql`.

They hold plain values only (strings, numbers, tuples, dicts), so that any stage, the server and a test can
make them without a database. Ids of prompts, completions, comparisons and assignments are digests of their
content: adding the same thing twice adds nothing.
"""

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Split = Literal["train", "test"]
CompletionRole = Literal["sample", "demonstration", "edit"]
Purpose = Literal["train", "random", "gold", "repeat", "eval"]
Verdict = Literal["ranked", "tie", "all_bad", "skip"]
AnnotatorKind = Literal["human", "model", "rule"]
AnnotatorRole = Literal["annotator", "lead", "admin"]
RunStatus = Literal["running", "done", "failed", "stopped", "interrupted"]

TEST_SHARE = 0.1  # share of prompts held out, by hash

# JSON without spaces, keys sorted: what ids are made of. One encoder for all: json.dumps makes one per call.
canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str).encode


def digest(*parts: object) -> str:
    """A 20-hex-digit id made of the content of `parts` (JSON values)."""
    return hashlib.sha256(canonical(parts).encode("utf-8", "surrogatepass")).hexdigest()[:20]


def new_id() -> str:
    """A random id, for what has no content to be named after (a vote made by a person)."""
    return uuid.uuid4().hex


def split_of(group: str, test_share: float = TEST_SHARE) -> Split:
    """Held-out or not, decided by the hash of the prompt (or of its group), never by the pair."""
    bucket = int(hashlib.sha256(f"split:{group}".encode("utf-8", "surrogatepass")).hexdigest()[:8], 16)
    return "test" if bucket / 0xFFFFFFFF < test_share else "train"


@dataclass(frozen=True)
class Prompt:
    """A conversation that awaits an answer; `messages` end with a user turn."""

    messages: tuple[Message, ...]
    source: str = ""  # the file or generator it came from
    split: Split | None = None  # None: by the hash of `group` or of the prompt itself
    tags: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)  # meta["group"] keeps prompts of one topic together
    run_id: str | None = None  # the run that added it
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or digest("prompt", list(self.messages)))
        group = str(self.meta.get("group") or self.id)
        object.__setattr__(self, "split", self.split or split_of(group))


@dataclass(frozen=True)
class Completion:
    """An answer to a prompt, with all that is known of how it came about."""

    prompt_id: str
    text: str
    model: str = ""  # a run id, a hub id, or the author's name in the source file
    sampling: dict[str, Any] = field(default_factory=dict)  # temperature, top_p, max_new_tokens
    seed: int | None = None
    finish_reason: str | None = None  # "stop" or "length"
    role: CompletionRole = "sample"
    meta: dict[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    id: str = ""

    def __post_init__(self) -> None:
        identity = ("completion", self.prompt_id, self.text, self.model, self.role)
        object.__setattr__(self, "id", self.id or digest(*identity))


@dataclass(frozen=True)
class Comparison:
    """2..9 completions of one prompt that somebody is, or was, asked to rank."""

    prompt_id: str
    completion_ids: tuple[str, ...]  # canonical order: as stored, never the order shown
    strategy: str = "random"  # how it was chosen
    propensity: float = 1.0  # with which probability
    purpose: Purpose = "train"
    overlap: int = 1  # how many annotators it awaits
    priority: int = 0
    reserved_for: str | None = None  # only this annotator is asked: live comparisons, hidden repeats
    repeats: str | None = None  # the comparison that this one shows again
    run_id: str | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if not 2 <= len(self.completion_ids) <= 9 or len(set(self.completion_ids)) < len(self.completion_ids):
            raise ValueError(f"a comparison takes 2 to 9 different completions, got {self.completion_ids}")
        own = (self.reserved_for,) if self.reserved_for else ()
        identity = ("comparison", self.prompt_id, sorted(self.completion_ids), self.purpose, *own)
        object.__setattr__(self, "id", self.id or digest(*identity))


@dataclass(frozen=True)
class Annotator:
    """Who votes. Rules and models are marked by `kind` and never mix into human statistics silently."""

    name: str
    kind: AnnotatorKind = "human"
    role: AnnotatorRole = "annotator"
    meta: dict[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or digest("annotator", self.name, self.kind))


@dataclass(frozen=True)
class Assignment:
    """One comparison shown to one annotator, in the order in which it was shown."""

    comparison_id: str
    annotator_id: str
    display_order: tuple[str, ...]  # completion ids, first = leftmost
    state: Literal["open", "done", "released"] = "open"
    leased_until: datetime | None = None
    id: str = ""

    def __post_init__(self) -> None:
        identity = ("assignment", self.comparison_id, self.annotator_id)
        object.__setattr__(self, "id", self.id or digest(*identity))


@dataclass(frozen=True)
class Vote:
    """One answer of one annotator. Append-only: a correction is a new vote that `supersedes` the old."""

    assignment_id: str
    verdict: Verdict
    ranking: tuple[tuple[str, ...], ...] = ()  # tiers of completion ids, best first; equal within a tier
    strength: int | None = None  # 0 (hardly) .. 3 (much better)
    criteria: dict[str, Any] = field(default_factory=dict)
    rationale: str | None = None
    flags: tuple[str, ...] = ()
    edited_text: str | None = None
    seconds_visible: float | None = None
    seconds_active: float | None = None
    guideline_version: int | None = None
    reason: str | None = None  # why it was skipped
    supersedes: str | None = None
    created_at: datetime | None = None  # None: now, UTC
    run_id: str | None = None  # the import or simulation that brought it; None for a person at the screen
    adjudicated: bool = False  # decided by a lead who saw the others' votes; no part of agreement
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or new_id())


@dataclass(frozen=True)
class Run:
    """One execution of one stage: what went in, what came out. The file `run.json` is its home."""

    id: str
    stage: str
    parents: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    dataset_hash: str | None = None
    template_hash: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    status: RunStatus = "running"
    artefact: dict[str, Any] = field(
        default_factory=dict
    )  # {"kind": "model"|"adapter"|"reward", "base": ref}
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # frozen inputs: name -> sha256, rows
    error: str | None = None
    pid: int | None = None
    created_at: str = ""
    finished_at: str | None = None
    path: str = ""


@dataclass(frozen=True)
class Score:
    """What a reward run thinks of a completion."""

    completion_id: str
    run_id: str
    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Feature:
    """A completion's frozen features: what a run of `palate reward features` made of it. D numbers, the same D in a run."""

    completion_id: str
    run_id: str
    vector: tuple[float, ...]
