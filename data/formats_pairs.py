"""Two answers to one prompt and which is better: chosen and rejected, or side by side with a verdict.

The prompt may be a column, or stand inside both answers (conversations, transcripts, texts with a common
beginning).
"""

import os
from typing import Any

from palate.data.formats_item import (
    PAIR_META,
    Answer,
    BadRow,
    Item,
    Judgement,
    Row,
    as_text,
    check_prompt,
    conversation,
    extras_of,
    first,
    is_conversation,
    missing,
    prompt_of,
    split_answer,
)
from palate.data.formats_votes import VOTE_COLUMNS, check_answers, decide, details
from palate.data.records import Message

_MADE_BY = frozenset(
    [
        "chosen_model",
        "model_chosen",
        "chosen-model",
        "rejected_model",
        "model_rejected",
        "rejected-model",
        "model_a",
        "model_b",
        "a_model",
        "b_model",
        "cmp_key",
    ]
)


def pair(row: Row) -> list[Item]:
    """chosen and rejected: texts, messages, whole conversations, or transcripts with the prompt inside."""
    before, texts = _two_answers(row, row["chosen"], row["rejected"], ("chosen", "rejected"))
    answers = [
        Answer(text, _made_by(row, side)) for text, side in zip(texts, ("chosen", "rejected"), strict=True)
    ]
    return [_preference(row, before, answers, _MADE_BY | {"chosen", "rejected"})]


def openai_pair(row: Row) -> list[Item]:
    asked = row["input"].get("messages") if isinstance(row["input"], dict) else None
    if not is_conversation(asked):
        raise BadRow("input.messages is no list of messages")
    before = check_prompt(conversation(asked, "input.messages"))
    names = ("preferred_output", "non_preferred_output")
    texts = [split_answer(conversation(row[name] or [], name), name)[1] for name in names]
    return [_preference(row, before, [Answer(text) for text in texts], frozenset(names))]


def output_pair(row: Row) -> list[Item]:
    answers = [Answer(as_text(value, "output")) for value in row["output"]]
    return [_preference(row, prompt_of(row), answers, frozenset({"output"}))]


def _preference(
    row: Row, messages: tuple[Message, ...], answers: list[Answer], taken: frozenset[str]
) -> Item:
    """The first answer was chosen; in which order they were shown is not known."""
    judged = Judgement(((0,), (1,)))
    details(judged, row)
    item = Item(messages, answers, True, False, [judged], **extras_of(row, taken | VOTE_COLUMNS, PAIR_META))
    check_answers(item)
    return item


def sides(row: Row, left: str, right: str, verdict: str | None, people: list[str]) -> list[Item]:
    """Two answers side by side and a column, or one per annotator, that says which is better."""
    before, texts = _two_answers(row, row[left], row[right], (left, right))
    models = _cmp_models(row) or (_made_by(row, "a"), _made_by(row, "b"))
    answers = [Answer(text, model) for text, model in zip(texts, models, strict=True)]
    numbered = left[-1] == "1"
    judged = []
    for column in people or [str(verdict)]:
        if missing(row[column]) or (people and row[column] == ""):
            continue
        found = Judgement(annotator=column if people else None)
        decide(found, _side_choice(row[column], left, right, numbered), ("a", "b"))
        if not people:
            details(found, row)
        judged.append(found)
    extras = extras_of(row, VOTE_COLUMNS | _MADE_BY | {left, right, str(verdict), *people}, PAIR_META)
    item = Item(before, answers, True, True, judged, **extras)
    check_answers(item)
    return [item]


def _side_choice(value: Any, left: str, right: str, numbered: bool) -> str:
    """The verdict as a | b | tie ...; numbers only where the columns are numbered (0 and 1.5 are ties)."""
    word = as_text(value, "the verdict").strip()
    low = word.lower()
    if low in (left, "left", "model_a", "response_a", "answer_a"):
        return "a"
    if low in (right, "right", "model_b", "response_b", "answer_b"):
        return "b"
    if numbered:
        return {"1": "a", "1.0": "a", "2": "b", "2.0": "b", "0": "tie", "0.0": "tie", "1.5": "tie"}.get(
            low, word
        )
    return word


def _two_answers(
    row: Row, one: Any, other: Any, names: tuple[str, str]
) -> tuple[tuple[Message, ...], list[str]]:
    """The prompt and the two texts, wherever the prompt stands."""
    asked = first(row, "prompt", "instruction", "question")
    if is_conversation(one) and is_conversation(other):
        (before, text), (before2, text2) = (
            split_answer(conversation(v, n), n) for v, n in zip((one, other), names, strict=True)
        )
        if before != before2:
            raise BadRow(f"{names[0]} and {names[1]} part before the last answer: no common prompt")
        if asked is None and "conversations" in row:
            before = conversation(row["conversations"], "conversations") + before
        elif asked is not None and (not before or is_conversation(asked)):
            explicit = list(prompt_of(row))
            before = before if before[: len(explicit)] == explicit else explicit + before
        return check_prompt(before), [text, text2]
    texts = [as_text(one, names[0]), as_text(other, names[1])]
    if asked is not None:
        return prompt_of(row), texts
    if "conversations" in row:
        return check_prompt(conversation(row["conversations"], "conversations")), texts
    common = os.path.commonprefix(texts)
    cut = max(common.rfind(" "), common.rfind("\n")) + 1  # never inside a word
    if not common[:cut].strip():
        raise BadRow(
            f"no prompt: neither a column for it nor a common beginning of {names[0]} and {names[1]}"
        )
    return check_prompt([{"role": "user", "content": common[:cut].strip()}]), [text[cut:] for text in texts]


def _made_by(row: Row, side: str) -> str:
    """The model that wrote one side, if a column says it: chosen_model, model_chosen, model_a, ..."""
    model = first(row, f"{side}_model", f"model_{side}", f"{side}-model")
    return "" if model is None else str(model)


def _cmp_models(row: Row) -> tuple[str, str] | None:
    """PandaLM's `cmp_key` names both models, unless an underscore in a name makes that a guess."""
    parts = str(row.get("cmp_key") or "").split("_")
    return (parts[0], parts[1]) if len(parts) == 2 and all(parts) else None
