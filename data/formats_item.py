"""What a row of a file says, before it becomes records: a prompt, its answers, and who judged them.

Also the small conversions that all formats share: any value to text, any kind of conversation to messages.
A value that can't be used raises `BadRow` with a reason in plain words.
"""

import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from palate.data.records import AnnotatorKind, CompletionRole, Message, Purpose, Split, Verdict

Row = dict[str, Any]
ROLES = {  # the words that files use -> ours
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")  # the HH transcripts' turns

PROMPT_COLUMNS = frozenset(
    [
        "prompt",
        "instruction",
        "input",
        "question",
        "system",
        "system_prompt",
        "history",
        "messages",
        "conversations",
    ]
)
_SPLITS: dict[str, Split] = {"train": "train", "test": "test", "validation": "test", "valid": "test", "val": "test", "dev": "test", "eval": "test"}  # fmt: skip
# what a row that compares answers may say of its prompt; other columns there belong to the pair
PAIR_META = frozenset(
    [
        "group",
        "lang",
        "language",
        "category",
        "licence",
        "license",
        "topic",
        "domain",
        "task",
        "subset",
        "motivation_app",
    ]
)


class BadRow(ValueError):
    """Why a row can't be used."""


@dataclass(slots=True)
class Answer:
    """One answer to the prompt."""

    text: str
    model: str = ""
    role: CompletionRole = "sample"
    finish_reason: str | None = None
    meta: Row = field(default_factory=dict)


@dataclass(slots=True)
class Judgement:
    """One annotator's verdict on the row's answers; answers are named by their place in the row."""

    tiers: tuple[tuple[int, ...], ...] = ()  # best first; equal within a tier
    verdict: Verdict = "ranked"
    annotator: str | None = None  # None: nobody is named
    kind: AnnotatorKind = "human"
    time: datetime | None = None  # UTC
    strength: int | None = None
    criteria: Row = field(default_factory=dict)
    rationale: str | None = None
    flags: tuple[str, ...] = ()
    edited_text: str | None = None
    seconds_visible: float | None = None
    seconds_active: float | None = None
    guideline_version: int | None = None
    supersedes: str | None = None
    adjudicated: bool = False
    id: str = ""  # the vote's own id, when the file says it
    assignment_id: str = ""


@dataclass(slots=True)
class Item:
    """One prompt with what the row says of it."""

    messages: tuple[Message, ...]
    answers: list[Answer] = field(default_factory=list)
    compared: bool = False  # the answers stand, or stood, beside each other to be ranked
    shown: bool = False  # the order of the answers is the order in which they were shown
    judgements: list[Judgement] = field(default_factory=list)
    purpose: Purpose = "train"  # of the comparison
    meta: Row = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    split: Split | None = None
    source: str | None = None
    dropped: tuple[str, ...] = ()  # columns that have no place in a record


def missing(value: Any) -> bool:
    """None, or the NaN that table tools write for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def first(row: Row, *names: str) -> Any:
    """The first of these columns that is there and not missing, else None."""
    for name in names:
        value = row.get(name)
        if not missing(value):
            return value
    return None


def as_text(value: Any, name: str) -> str:
    """Text as it stands; numbers as text; a message as its content."""
    if type(value) is not str:
        value = _to_text(value, name)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRow(f"{name} holds half a character (a lone surrogate at {error.start + 1})") from error
    return str(value)


def _to_text(value: Any, name: str) -> str:
    if missing(value):
        raise BadRow(f"{name} is missing")
    if isinstance(value, str | bool | int | float):
        return str(value)  # table tools turn answers such as True or 42 into values
    if isinstance(value, dict):
        return as_text(first(value, "content", "value", "text"), name)
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], dict) and "role" in value[0]:
            return as_text(value[0].get("content"), name)
        parts = [part.get("text") if isinstance(part, dict) else part for part in value]
        texts = [part for part in parts if isinstance(part, str)]
        if texts and len(texts) == len(parts):
            return "".join(texts)
    raise BadRow(f"{name} is not text: {str(value)[:60]!r}")


def is_conversation(value: Any) -> bool:
    """A list of messages, the same as JSON text, or an HH transcript."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict) and bool({"role", "from"} & value[0].keys())
    if not isinstance(value, str):
        return False
    if value.startswith(("[{", "[\n")):
        return is_conversation(loaded(value))
    return value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def loaded(text: str) -> Any:
    """JSON text as a value, None when it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def conversation(value: Any, name: str) -> list[Message]:
    """Messages with our role names. An empty last assistant turn of an HH transcript is dropped."""
    if isinstance(value, str):
        if value.startswith("["):
            return conversation(loaded(value), name)
        return _transcript(value)
    messages = []
    for message in value:
        role = message.get("role") if "role" in message else message.get("from")
        if role not in ROLES:
            raise BadRow(f"{name} has a turn by {role!r}; known are system, user and assistant")
        if message.get("tool_calls"):
            raise BadRow(f"{name} holds tool calls; only text is taken")
        content = message.get("content") if "content" in message else message.get("value")
        messages.append({"role": ROLES[role], "content": as_text(content, f"a turn of {name}")})
    if not messages:
        raise BadRow(f"{name} is empty")
    return messages


def _transcript(text: str) -> list[Message]:
    parts = _TURN.split(text.strip())[1:]
    messages = [
        {"role": ROLES[speaker.lower()], "content": as_text(turn.strip(), "a turn")}
        for speaker, turn in zip(parts[::2], parts[1::2], strict=True)
    ]
    return messages[:-1] if messages and messages[-1] == {"role": "assistant", "content": ""} else messages


def check_prompt(messages: list[Message]) -> tuple[Message, ...]:
    """A conversation that awaits an answer."""
    if not messages or messages[-1]["role"] != "user":
        last = messages[-1]["role"] if messages else "nobody"
        raise BadRow(f"the prompt must end with a user turn, it ends with {last}")
    if not messages[-1]["content"].strip():
        raise BadRow("the prompt is empty")
    return tuple(messages)


def split_answer(messages: list[Message], name: str) -> tuple[list[Message], str]:
    """The conversation before its last assistant turn, and that turn."""
    if not messages or messages[-1]["role"] != "assistant":
        raise BadRow(f"{name} must end with an assistant turn")
    return messages[:-1], messages[-1]["content"]


def plain(value: Any) -> Any:
    """A value for a JSON column: no NaN, no bytes, no dates."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items() if not missing(inner)}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value if not missing(inner)]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) != float("inf") else str(value)
    return str(value)


def prompt_of(row: Row) -> tuple[Message, ...]:
    """The prompt that the columns prompt | instruction (+ input) | question hold, with system and history."""
    value = first(row, "prompt", "instruction", "question")
    if is_conversation(value):
        return check_prompt(conversation(value, "prompt"))
    text = as_text(value, "the prompt")
    more = first(row, "input") if not missing(row.get("instruction")) else None
    if more is not None and (added := as_text(more, "input")).strip():
        text = f"{text}\n\n{added}"
    messages: list[Message] = []
    system = first(row, "system", "system_prompt")
    if system is not None and (rule := as_text(system, "system")).strip():
        messages.append({"role": "system", "content": rule})
    history = row.get("history")
    if isinstance(history, list):
        for turn in history:
            if not isinstance(turn, list) or len(turn) != 2:
                raise BadRow("history must be a list of [question, answer]")
            messages.append({"role": "user", "content": as_text(turn[0], "history")})
            messages.append({"role": "assistant", "content": as_text(turn[1], "history")})
    return check_prompt([*messages, {"role": "user", "content": text}])


def extras_of(row: Row, taken: frozenset[str], keep: frozenset[str] | None = None) -> dict[str, Any]:
    """The columns that are not the prompt or an answer: meta, tags, split and source of the item.

    With `keep`, only those columns go to meta and the others are named in `dropped`.
    """
    found: dict[str, Any] = {"meta": {}}
    dropped = []
    for name, value in row.items():
        if name in PROMPT_COLUMNS or name in taken or missing(value):
            continue
        if name == "split" and isinstance(value, str) and value.lower() in _SPLITS:
            found["split"] = _SPLITS[value.lower()]
        elif name == "tags" and isinstance(value, list):
            found["tags"] = tuple(as_text(tag, "a tag") for tag in value)
        elif name == "source" and isinstance(value, str) and value.strip():
            found["source"] = value
        elif name == "group":
            found["meta"]["group"] = str(value)
        elif keep is None or name in keep:
            found["meta"][name] = plain(value)
        else:
            dropped.append(name)
    if dropped:
        found["dropped"] = tuple(dropped)
    return found
