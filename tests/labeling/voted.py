"""Stores with votes of people, written past the server: who said what about which item, when, and why.

item = ask(store, "a prompt", ("good", "bad"), source="s", tags=("t",))
vote(store, item, "anna", "0>1", rationale="clear", day=3)
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from palate.data.records import Annotator, AnnotatorKind, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.store import Store

START = datetime(2026, 3, 2)  # a Monday
Asked = tuple[Prompt, list[Completion], Comparison]
Cast = tuple[Annotator, Assignment, Vote]


def ask(store: Store, prompt: str, *args: Any, **fields: Any) -> Comparison:
    """Store one comparison, see `asked`."""
    return ask_all(store, [asked(prompt, *args, **fields)])[0]


def ask_all(store: Store, items: Sequence[Asked]) -> list[Comparison]:
    """Store many comparisons at once."""
    store.add_prompts([prompt for prompt, _, _ in items])
    store.add_completions([answer for _, answers, _ in items for answer in answers])
    store.add_comparisons([comparison for _, _, comparison in items])
    return [comparison for _, _, comparison in items]


def asked(
    prompt: str,
    texts: tuple[str, ...] = ("first", "second"),
    models: tuple[str, ...] = ("m0", "m1", "m2"),
    source: str = "s",
    tags: tuple[str, ...] = (),
    **fields: Any,
) -> Asked:
    """A comparison of these texts, each by the model at its place, not stored yet."""
    question = Prompt(({"role": "user", "content": prompt},), source=source, tags=tags)
    answers = [Completion(question.id, text, model=models[i % len(models)]) for i, text in enumerate(texts)]
    return question, answers, Comparison(question.id, tuple(answer.id for answer in answers), **fields)


def vote(store: Store, item: Comparison, name: str, said: str, day: float = 0, **fields: Any) -> Vote:
    """Store one vote: `0>1` (places of texts), `0>2=1`, `tie`, `skip` or `all_bad`; on the given day after START."""
    one = made(item, name, said, day, **fields)
    votes(store, [one])
    return one[2]


def votes(store: Store, cast: Sequence[Cast]) -> None:
    """Store many votes at once."""
    store.add_annotators([person for person, _, _ in cast])
    store.add_assignments([seat for _, seat, _ in cast])
    store.add_votes([one for _, _, one in cast])


def made(
    item: Comparison,
    name: str,
    said: str,
    day: float = 0,
    kind: AnnotatorKind = "human",
    assignment_id: str = "",
    **fields: Any,
) -> Cast:
    """A vote with whose and where it is, not stored yet."""
    person = Annotator(name, kind)
    seat = Assignment(item.id, person.id, item.completion_ids, "done", id=assignment_id)
    verdict, ranking = said, tuple[tuple[str, ...], ...]()
    if said == "tie":
        ranking = (item.completion_ids,)
    elif said not in ("skip", "all_bad"):
        verdict = "ranked"
        ranking = tuple(
            tuple(item.completion_ids[int(n)] for n in tier.split("=")) for tier in said.split(">")
        )
    at = START + timedelta(days=day)
    return person, seat, Vote(seat.id, verdict, ranking, created_at=at, **fields)  # type: ignore[arg-type]
