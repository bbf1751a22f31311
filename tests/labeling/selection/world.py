"""Comparisons whose completions have features, and a taste that is linear in them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.data import features
from palate.data.records import Comparison, Completion, Prompt, Run
from palate.data.store import Store
from palate.labeling.ballots import Ballot, Item
from palate.labeling.desk import Desk

RUN = "features-1"


@dataclass
class World:
    """`score` by a completion's text, higher is better."""

    score: dict[str, float]
    taste: NDArray[np.float64]

    def answer(self, item: Item, vote_id: str, flip: bool = False) -> Ballot:
        """What somebody of this taste says; `flip`: the other way round."""
        order = sorted(item.answers, key=lambda answer: -self.score[answer[1]])
        tiers = tuple((letter,) for letter, _ in (reversed(order) if flip else order))
        return Ballot("ranked", tiers, vote_id=vote_id, assignment_id=item.assignment_id)


def world(store: Store, n: int = 60, k: int = 2, size: int = 8, seed: int = 0, first: int = 0) -> World:
    """`n` comparisons of `k` completions with features."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(99).normal(size=size)
    prompts = [Prompt(({"role": "user", "content": f"idea {i}"},)) for i in range(first, first + n)]
    completions = [
        [Completion(p.id, f"{'word ' * (1 + j)}of answer {first + i}.{j}", model="m") for j in range(k)]
        for i, p in enumerate(prompts)
    ]
    flat = [one for group in completions for one in group]
    matrix = rng.normal(size=(len(flat), size)).astype(np.float32)
    store.add_prompts(prompts)
    store.add_completions(flat)
    store.add_comparisons(
        [Comparison(group[0].prompt_id, tuple(c.id for c in group)) for group in completions]
    )
    if store.value("SELECT count(*) FROM run") == 0:
        store.put_run(Run(RUN, "features", created_at="2026-01-01"))
    features.add(store, RUN, [one.id for one in flat], matrix)
    return World({one.text: float(row @ taste) for one, row in zip(flat, matrix, strict=True)}, taste)


def take_turns(
    desk: Desk, given: World, person: str, votes: int, rng: np.random.Generator, flips: float = 0.0
) -> int:
    """Vote until there is nothing left, at most so often; returns how often. The selector learns at once."""
    import random

    for number in range(votes):
        items = desk.next_items(person, random.Random(int(rng.integers(2**31))), 1)
        if not items:
            return number
        ballot = given.answer(
            items[0], f"{person[:8]}-{number}-{rng.integers(2**31)}", bool(rng.random() < flips)
        )
        cast = desk.cast_all(person, [ballot])
        if desk.selector is not None:
            desk.selector.heard(cast)
            desk.selector.refresh()
    return votes
