"""What a view keeps: the figures from the facts against the rows that training takes, and by hand."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from palate.data.facts import Facts
from palate.data.preferences import rankings
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.store import Store
from palate.data.training_views import Definition, View
from palate.labeling.statistics.view_effects import Kept, effect, kept

START = datetime(2026, 3, 1)
PEOPLE = [Annotator(f"person {i}") for i in range(6)] + [
    Annotator("a rule", "rule"),
    Annotator("a judge", "model"),
]
WEIGHTS = {PEOPLE[i].id: weight for i, weight in enumerate((2.0, 1.5, 1.0, 0.4, 0.0))}


def cast_many(store: Store, n: int = 160, seed: int = 5) -> None:
    """Comparisons of 2 to 4 answers with 0 to 5 votes each: ties, splits, strengths, repeats, adjudications."""
    rng = Random(seed)
    prompts = [
        Prompt(
            ({"role": "user", "content": f"idea {i}"},),
            rng.choice(("ideas", "other")),
            tags=rng.choice(((), ("hard",), ("hard", "new"))),
        )
        for i in range(n)
    ]
    completions, comparisons, assignments, votes = list[Any](), list[Any](), list[Any](), list[Any]()
    for prompt in prompts:
        made = [
            Completion(prompt.id, f"{i}" + "x" * rng.randint(0, 5), finish_reason="stop")
            for i in range(rng.choice((2, 2, 2, 3, 4)))
        ]
        completions += made
        ids = tuple(one.id for one in made)
        one = Comparison(prompt.id, ids, purpose=rng.choice(("train", "train", "random", "gold", "eval")))
        shown = [one, Comparison(prompt.id, ids, purpose="repeat", repeats=one.id)]
        comparisons += shown
        who = rng.sample(PEOPLE, rng.choice((0, 1, 1, 2, 3, 4, 5)))
        answers = [(person, one) for person in who] + [(person, shown[1]) for person in who[:1]]
        for person, on in answers:
            assignment = Assignment(on.id, person.id, on.completion_ids)
            assignments.append(assignment)
            at = START + timedelta(minutes=rng.randrange(20_000))
            adjudicated = rng.random() < 0.06
            draw = rng.random()
            if draw < 0.05:
                votes.append(Vote(assignment.id, "skip", created_at=at, adjudicated=adjudicated))
            elif draw < 0.1:
                votes.append(Vote(assignment.id, "all_bad", created_at=at, adjudicated=adjudicated))
            else:
                ranked = rng.sample(ids, len(ids) if rng.random() < 0.8 else 2)
                tiers = [[ranked[0]]]
                for name in ranked[1:]:
                    if rng.random() < 0.25:
                        tiers[-1].append(name)
                    else:
                        tiers.append([name])
                tied = len(tiers) == 1
                strength = 0 if tied and len(ids) == 2 else rng.choice((None, 0, 1, 2, 3))
                votes.append(
                    Vote(
                        assignment.id, "tie" if tied else "ranked", tuple(map(tuple, tiers)), strength,
                        created_at=at, adjudicated=adjudicated,
                    )
                )  # fmt: skip
    store.add_all(prompts, completions, comparisons, PEOPLE, assignments, votes)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Facts]]:
    with Store(tmp_path_factory.mktemp("views") / "palate.duckdb") as store:
        cast_many(store)
        with Facts(store) as facts:
            facts.refresh()
            yield store, facts


def by_rows(store: Store, view: View) -> dict[str, Any]:
    """The same figures from the rows that training takes."""
    rows = rankings(store, view=view).to_pylist()
    majority = view.definition.aggregation == "majority"
    pairs, votes, longer, uneven = 0, set[str](), 0.0, 0.0
    uneven_pairs = 0
    for row in rows:
        votes |= {pair["vote_id"] for pair in row["pairs"]}
        labels = {(min(p["winner"], p["loser"]), max(p["winner"], p["loser"])) for p in row["pairs"]}
        pairs += len(labels) if majority else len(row["pairs"])
        lengths, seen = [len(text) for text in row["completions"]], set[tuple[int, int]]()
        for pair in row["pairs"]:
            won, lost = pair["winner"], pair["loser"]
            if not pair["tie"] and lengths[won] != lengths[lost]:
                uneven += pair["weight"]
                longer += pair["weight"] * (lengths[won] > lengths[lost])
                uneven_pairs += not majority or (won, lost) not in seen
                seen.add((won, lost))
    return {
        "comparisons": len(rows), "pairs": pairs, "votes": len(votes),
        "longer": pytest.approx(longer / uneven, abs=1e-9) if uneven else None, "longer_of": uneven_pairs,
    }  # fmt: skip


DEFINITIONS = [
    Definition(),
    Definition(ties=False),
    Definition(min_strength=2),
    Definition(min_strength=2, unknown_strength=True, ties=False),
    Definition(min_agreement=0.6),
    Definition(min_agreement=0.6, keep_single=True, ties=False),
    Definition("majority"),
    Definition("majority", ties=False),
    Definition("majority", 2, min_agreement=0.6, kinds=("human",)),
    Definition("majority", 1, unknown_strength=True, min_agreement=0.6, keep_single=True, ties=False),
    Definition("reliability"),
    Definition("reliability", ties=False, min_agreement=2 / 3, keep_single=True),
    Definition("reliability", exclude=(PEOPLE[0].id,), source="ideas", tag="hard"),
    Definition("vote", exclude=(PEOPLE[1].id, PEOPLE[2].id), purposes=("gold", "train")),
    Definition("majority", since=date(2026, 3, 4), until=date(2026, 3, 10), purposes=("repeat", "random")),
    Definition("vote", kinds=("rule", "model"), since=date(2026, 3, 4), tag="new"),
    Definition("vote", source="nowhere"),
]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda one: ", ".join(one.in_words()))
def test_figures_are_those_of_the_rows(both: tuple[Store, Facts], definition: Definition) -> None:
    store, facts = both
    weights = WEIGHTS if definition.aggregation == "reliability" else None
    found = kept(facts, View("a", definition, weights))
    expected = by_rows(store, View("a", definition, weights))
    assert {name: getattr(found, name) for name in expected} == expected


def test_agreement_by_another_way(both: tuple[Store, Facts]) -> None:
    """Every pair of votes on the same two completions, one by one; without second answers and adjudications."""
    store, facts = both
    rows = store.rows(
        """
        SELECT p.*, v.created_at, coalesce(c.repeats, c.id) AS root, v.id
        FROM preference p JOIN current_vote v ON v.id = p.vote_id JOIN comparison c ON c.id = p.comparison_id
        WHERE p.purpose IN ('train', 'random', 'repeat')
        """
    )
    answered = store.rows(
        "SELECT v.id, v.annotator_id, v.created_at, coalesce(c.repeats, c.id) AS root FROM current_vote v "
        "JOIN comparison c ON c.id = v.comparison_id WHERE v.verdict <> 'skip' ORDER BY v.created_at"
    )
    first: dict[tuple[str, str], str] = {}
    for row in answered:
        first.setdefault((row["annotator_id"], row["root"]), row["id"])
    said: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row["adjudicated"] or first[row["annotator_id"], row["root"]] != row["vote_id"]:
            continue
        pair = sorted((row["winner"], row["loser"]))
        said.setdefault((row["comparison_id"], *pair), []).append("tie" if row["tie"] else row["winner"])
    several = [pair for labels in said.values() for pair in combinations(labels, 2)]
    found = kept(facts, View("a"))
    assert found.agreed_on == len(several) > 100
    assert found.agreement == pytest.approx(sum(one == other for one, other in several) / len(several))
    decided = [pair for pair in several if "tie" not in pair]
    found = kept(facts, View("a", Definition(ties=False)))
    assert found.agreed_on == len(decided)
    assert found.agreement == pytest.approx(sum(one == other for one, other in decided) / len(decided))


def test_by_hand(tmp_path: Path) -> None:
    """A 2:1 won by the longer one, a single vote for the shorter one, a tie."""
    prompts = [Prompt(({"role": "user", "content": text},)) for text in ("p1", "p2", "p3")]
    texts = [("longer", "short"), ("longer still", "short"), ("same", "size")]
    completions = [
        [Completion(prompt.id, text) for text in pair] for prompt, pair in zip(prompts, texts, strict=True)
    ]
    comparisons = [Comparison(p.id, (a.id, b.id)) for p, (a, b) in zip(prompts, completions, strict=True)]
    people = PEOPLE[:3]
    cast = [
        (0, 0, "first"),
        (0, 1, "first"),
        (0, 2, "second"),
        (1, 0, "second"),
        (2, 1, "tie"),
        (2, 2, "first"),
    ]
    assignments, votes = [], []
    for item, person, said in cast:
        one = comparisons[item]
        assignments.append(Assignment(one.id, people[person].id, one.completion_ids))
        a, b = one.completion_ids
        tiers = {"first": ((a,), (b,)), "second": ((b,), (a,)), "tie": ((a, b),)}[said]
        votes.append(Vote(assignments[-1].id, "tie" if said == "tie" else "ranked", tiers))
    with Store(tmp_path / "palate.duckdb") as store, Facts(store) as facts:
        facts.refresh()
        nothing = Kept(0, 0, 0, None, 0, None, 0)
        assert effect(facts, View("m", Definition("majority"))).before == nothing
        assert effect(facts, View("m", Definition("majority"))).after == nothing
        store.add_all(
            prompts, [c for pair in completions for c in pair], comparisons, people, assignments, votes
        )
        facts.refresh()
        # of the four pairs of votes on the same pair, one says the same
        before = Kept(3, 6, 6, 1 / 4, 4, pytest.approx(2 / 4), 4)
        assert effect(facts, View("v")).before == effect(facts, View("v")).after == before
        # the majorities: longer, shorter, and a split, which is a tie
        found = effect(facts, View("m", Definition("majority")))
        assert (found.before, found.after) == (before, Kept(3, 3, 5, 1 / 4, 4, pytest.approx(1 / 2), 2))
        found = effect(facts, View("m", Definition("majority", ties=False, min_agreement=0.6)))
        assert found.after == Kept(1, 1, 2, 1 / 3, 3, 1.0, 1)
        # the votes of the third don't count, of the second half as much as of the first
        weights = {people[0].id: 2.0, people[1].id: 1.0, people[2].id: 0.0}
        found = effect(facts, View("r", Definition("reliability"), weights))
        assert found.after == Kept(3, 4, 4, 1.0, 1, pytest.approx(3 / 5), 3)
