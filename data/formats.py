"""What a row means, from its columns: TRL, OpenAI, Alpaca, HH, LLaMA-Factory, trees, annotators' votes.

    shape = shape_of({"prompt": "Name a fruit.", "chosen": "A pear.", "rejected": "A brick."})
    shape.kind, shape.says       # "preferences", "prompt, chosen, rejected"
    shape.items(row)             # [Item]

Reading files is `palate.data.readers`; making records is `palate.data.staging`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from palate.data import formats_pairs, formats_trees
from palate.data.formats_item import (
    PAIR_META,
    PROMPT_COLUMNS,
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
from palate.data.formats_votes import RANKED_BY, VOTE_COLUMNS, check_answers, judgement, number
from palate.data.records import Purpose

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
Kind = Literal["prompts", "demonstrations", "preferences", "rankings"]


class Shape(NamedTuple):
    """One way in which files write things down."""

    kind: Kind
    says: str  # the columns that gave it away
    items: Callable[[Row], list[Item]]


KNOWN = (
    "prompt | prompt, completion | instruction, output | messages | chosen, rejected | prompt, a, b, choice | "
    "prompt, responses[], judgements[] | prompt, completions[], ranking[]"
)
_SIDES = (
    ("a", "b"), ("response_a", "response_b"), ("answer_a", "answer_b"), ("completion_a", "completion_b"),
    ("output_a", "output_b"), ("conversation_a", "conversation_b"), ("response1", "response2"),
    ("response_1", "response_2"), ("output_1", "output_2"), ("answer1", "answer2"), ("answer_1", "answer_2"),
)  # fmt: skip
_VERDICTS = ("choice", "preference", "winner", "preferred")
_ANNOTATOR_N = re.compile(r"annotator_?\d+")
_LISTS = ("responses", "completions", "candidates", "answers")
_MADE_BY = frozenset({"model", "written_by", "finish_reason"})
_ASKED = ("prompt", "instruction", "question")
_JUDGEMENTS = ("judgements", "judgments", "votes", "annotations")


def shape_of(row: Row) -> Shape:
    """The shape of a row; raises BadRow when no shape has these columns."""
    has = row.keys()
    if isinstance(row.get("prompt"), dict) and "replies" in row["prompt"]:
        return Shape("rankings", "prompt.replies[] with ranks (conversation trees)", formats_trees.items)
    for answers in _LISTS:
        if answers in has and isinstance(row[answers], list) and has & PROMPT_COLUMNS:
            return _ranking_shape(row, answers)
    if {"preferred_output", "non_preferred_output", "input"} <= has:
        return Shape(
            "preferences", "input.messages, preferred_output, non_preferred_output", formats_pairs.openai_pair
        )
    if {"chosen", "rejected"} <= has:
        named = next((c for c in (*_ASKED, "conversations") if c in has), None)
        return Shape("preferences", f"{named or 'prompt inside'}, chosen, rejected", formats_pairs.pair)
    for left, right in _SIDES:
        if {left, right} <= has:
            return _side_shape(row, left, right)
    if "label" in has and {"completion", "response"} & has and isinstance(row["label"], bool):
        raise BadRow(
            "thumbs up or down on single answers (label) are no preference between two: not imported"
        )
    return _single_shape(row)


def _single_shape(row: Row) -> Shape:
    has = row.keys()
    for column in ("messages", "conversations"):
        if column in has:
            return Shape("demonstrations", f"{column}[]", partial(_chat, column=column))
    asked = next((column for column in _ASKED if column in has), None)
    if asked is None:
        raise BadRow(f"no known shape: {', '.join(list(has)[:8]) or 'no columns'}; known are {KNOWN}")
    for answer in ("completion", "response", "output", "answer"):
        if answer not in has:
            continue
        if answer == "output" and isinstance(row[answer], list) and len(row[answer]) == 2:
            return Shape("preferences", "instruction, output[chosen, rejected]", formats_pairs.output_pair)
        return Shape("demonstrations", f"{asked}, {answer}", partial(_demonstration, column=answer))
    return Shape("prompts", asked, _prompt_only)


def _ranking_shape(row: Row, answers: str) -> Shape:
    asked = next(column for column in (*_ASKED, "messages", "conversations") if column in row)
    for judged in _JUDGEMENTS:
        if judged in row:
            items = partial(_ranking, column=answers, judgements=judged)
            return Shape("rankings", f"{asked}, {answers}[], {judged}[]", items)
    how = next((column for column in RANKED_BY if column in row), None)
    says = f"{asked}, {answers}[]" + (f", {how}[]" if how else " without a ranking: candidates to rank")
    return Shape("rankings", says, partial(_ranking, column=answers, judgements=None))


def _side_shape(row: Row, left: str, right: str) -> Shape:
    people = sorted((c for c in row if _ANNOTATOR_N.fullmatch(c)), key=lambda c: (len(c), c))
    verdict = next((column for column in _VERDICTS if column in row), None)
    if verdict is None and not people:
        raise BadRow(f"no column says which of {left} and {right} is better ({', '.join(_VERDICTS)})")
    says = f"{left}, {right}, {verdict or f'{people[0]}..{people[-1]}'}"
    items = partial(formats_pairs.sides, left=left, right=right, verdict=verdict, people=people)
    return Shape("preferences", says, items)


# -- prompts and demonstrations ---------------------------------------------------------------------------


def _prompt_only(row: Row) -> list[Item]:
    return [Item(prompt_of(row), **extras_of(row, frozenset()))]


def _demonstration(row: Row, column: str) -> list[Item]:
    """A prompt and its answer; without an answer it is a prompt only."""
    messages, value = prompt_of(row), row.get(column)
    extras = extras_of(row, _MADE_BY | {column})
    if missing(value):
        return [Item(messages, **extras)]
    if is_conversation(value):
        text = split_answer(conversation(value, column), column)[1]
    else:
        text = as_text(value, column)
    return [Item(messages, [_demo(row, text)], **extras)]


def _chat(row: Row, column: str) -> list[Item]:
    """A conversation: its last assistant turn is the demonstration; one that ends with the user is a prompt."""
    if not is_conversation(row[column]):
        raise BadRow(f"{column} is no list of messages: {str(row[column])[:60]!r}")
    messages = conversation(row[column], column)
    system = first(row, "system", "system_prompt")
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": as_text(system, "system")})
    extras = extras_of(row, _MADE_BY | {column})
    if messages[-1]["role"] == "user":
        return [Item(check_prompt(messages), **extras)]
    before, text = split_answer(messages, column)
    return [Item(check_prompt(before), [_demo(row, text)], **extras)]


def _demo(row: Row, text: str) -> Answer:
    if not text.strip():
        raise BadRow("the answer is empty: nothing to learn from")
    model = first(row, "model", "written_by")
    finish = first(row, "finish_reason")
    return Answer(
        text, "" if model is None else str(model), "demonstration", None if finish is None else str(finish)
    )


# -- several answers ---------------------------------------------------------------------------------------


def _ranking(row: Row, column: str, judgements: str | None) -> list[Item]:
    """A list of answers with rankings of one or several annotators, or with none yet."""
    listed = row[column]
    if not isinstance(listed, list):
        raise BadRow(f"{column} must be a list, it is {str(listed)[:60]!r}")
    answers = [_listed_answer(value, f"{column}[{place}]") for place, value in enumerate(listed)]
    names = [_name(value, place) for place, value in enumerate(listed)]
    chat = first(row, "messages", "conversations")
    messages = prompt_of(row) if chat is None else check_prompt(conversation(chat, "messages"))
    found: list[Judgement] = []
    if judgements is not None:
        for said in row[judgements] or []:
            if not isinstance(said, dict):
                raise BadRow(f"{judgements} must hold objects, not {str(said)[:60]!r}")
            found.append(judgement(said, names))
    elif first(row, *RANKED_BY) is not None:
        found.append(judgement(row, names))
    taken = VOTE_COLUMNS | {column, judgements or "", *RANKED_BY, "shown_in_order", "purpose"}
    shown = row.get("shown_in_order") is not False
    item = Item(messages, answers, True, shown, found, **extras_of(row, taken, PAIR_META))
    item.purpose = next((purpose for purpose in PURPOSES if row.get("purpose") == purpose), "train")
    check_answers(item)
    return [item]


def _listed_answer(value: Any, name: str) -> Answer:
    if not isinstance(value, dict):
        return Answer(as_text(value, name))
    text = next(
        (value[key] for key in ("text", "content", "response", "completion", "value") if key in value), None
    )
    model, finish = first(value, "model", "model_name"), first(value, "finish_reason")
    score = first(value, "score", "overall_score")
    return Answer(
        as_text(text, name),
        "" if model is None else str(model),
        value["role"] if value.get("role") in ("demonstration", "edit") else "sample",
        None if finish is None else str(finish),
        {} if score is None else {"score": number(score, "score")},
    )


def _name(value: Any, place: int) -> str:
    """How judgements call an answer: by its id, else by a letter."""
    named = value.get("id") if isinstance(value, dict) else None
    return "abcdefghijklmnopqrstuvwxyz"[place % 26] if missing(named) else str(named)
