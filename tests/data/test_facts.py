"""The facts say what the records say: every pair, incrementally, after changes, and after damage."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palate.data import facts_source
from palate.data.facts import Facts, filled
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.store import Store

# every pair that counts, as the records' own view has it: (annotator, comparison, a, b, tie, a wins, a first, strength)
PAIRS = """
SELECT annotator_id AS annotator, comparison_id AS comparison, least(winner, loser) AS a, greatest(winner, loser) AS b,
       tie, winner < loser AND NOT tie AS a_wins,
       CASE WHEN winner < loser THEN winner_shown_first ELSE NOT winner_shown_first END AS a_first, strength
FROM preference ORDER BY ALL
"""
JUDGED = """
SELECT n.id AS annotator, i.id AS comparison, u.a, u.b, j.grade = 0 AS tie, j.grade > 0 AS a_wins, j.a_first,
       j.grade, i.answers
FROM judgement j JOIN annotator n ON n.code = j.annotator JOIN item i ON i.code = j.item
JOIN unit u ON u.code = j.unit ORDER BY ALL
"""
START = datetime(2026, 3, 1)


def fill(store: Store, seed: int = 0, comparisons: int = 12) -> list[Comparison]:
    """Comparisons of 2 to 5 answers by three models, and five annotators of two kinds."""
    rng = random.Random(seed)
    made = []
    for number in range(comparisons):
        prompt = Prompt(
            ({"role": "user", "content": f"q{number}"},),
            source=f"s{number % 2}",
            tags=("t",) * (number % 3 == 0),
        )
        texts = [
            "short",
            "- a list\n- of two",
            "# Head\nwith **bold** and **more**",
            "```\n# no head\n```",
            "five " * 9,
        ]
        answers = [Completion(prompt.id, text, model=f"m{place % 3}") for place, text in enumerate(texts)]
        store.add_prompts([prompt])
        store.add_completions(answers)
        chosen = rng.sample(answers, rng.choice([2, 2, 3, 5]))
        made.append(
            Comparison(
                prompt.id, tuple(one.id for one in chosen), strategy=rng.choice(["random", "d-optimal"])
            )
        )
    store.add_comparisons(made)
    store.add_annotators([Annotator(f"p{n}", kind="human" if n < 4 else "rule") for n in range(5)])
    return made


def cast(store: Store, comparison: Comparison, name: str, rng: random.Random, **fields: Any) -> Vote:
    """A random vote: ranked with ties and gaps, a tie, a skip, or all bad."""
    person = Annotator(name, kind="rule" if name == "p4" else "human")
    ids = list(comparison.completion_ids)
    seat = Assignment(comparison.id, person.id, tuple(rng.sample(ids, len(ids))))
    store.add_assignments([seat])
    verdict = rng.choice(["ranked"] * 5 + ["tie", "skip", "all_bad"])
    ranking: tuple[tuple[str, ...], ...] = ()
    if verdict == "tie":
        ranking = (tuple(ids),)
    if verdict == "ranked":
        kept = rng.sample(ids, rng.randint(2, len(ids)))
        cut = rng.randint(1, len(kept) - 1)
        ranking = (tuple(kept[:cut]), *((one,) for one in kept[cut:]))
    strength = rng.choice([None, 0, 1, 2, 3]) if verdict == "ranked" else None
    vote = Vote(
        seat.id, verdict, ranking, strength, seconds_active=rng.random(),  # type: ignore[arg-type]
        created_at=START + timedelta(hours=rng.randint(0, 999)), **fields,
    )  # fmt: skip
    store.add_votes([vote])
    return vote


def same(store: Store, facts: Facts) -> None:
    """The facts hold exactly the pairs of the records' view, with the grades that its strengths mean."""
    expected, found = store.rows(PAIRS), facts.rows(JUDGED)
    for want, have in zip(expected, found, strict=True):
        size = 4 if have["answers"] > 2 or want["strength"] is None else max(want["strength"], 1)
        grade = 0 if want["tie"] else size if want["a_wins"] else -size
        assert have == {
            **{key: want[key] for key in have if key in want},
            "grade": grade,
            "answers": have["answers"],
        }
    ballots = facts.rows("SELECT verdict, count(*) AS n FROM ballot GROUP BY 1 ORDER BY 1")
    verdicts = ["ranked", "tie", "all_bad", "skip"]
    assert {verdicts[row["verdict"]]: row["n"] for row in ballots} == {
        row["verdict"]: row["n"]
        for row in store.rows("SELECT verdict, count(*) AS n FROM current_vote GROUP BY 1")
    }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


@pytest.mark.parametrize("few", [0, 500], ids=["joined", "looked up"])
def test_pairs_by_and_by(store: Store, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_source, "FEW", few)  # the way that millions of votes take
    rng = random.Random(1)
    comparisons = fill(store)
    with Facts(store) as facts:
        empty = facts.refresh()
        assert facts.value("SELECT count(*) FROM ballot") == 0
        for name in ("p0", "p1", "p2", "p4"):
            votes = [cast(store, one, name, rng) for one in comparisons]
            facts.refresh()
            same(store, facts)
        assert facts.version != empty
        for old in votes[:6]:  # changed: what stood before does not count
            new = Vote(old.assignment_id, "skip", supersedes=old.id)
            store.add_votes([new])
        before = facts.version
        assert facts.refresh() != before
        same(store, facts)
        standing = facts.version
        assert facts.refresh() == standing
    with Facts(store) as facts:  # opened again, nothing is taken in twice
        assert facts.version == standing == facts.refresh()
        same(store, facts)


def test_columns_of_a_ballot_and_its_item(store: Store) -> None:
    prompt = Prompt(({"role": "user", "content": "q"},), source="file", tags=("x", "y"))
    one = Completion(prompt.id, "# Head\n- a\n- **b**", model="left")
    two = Completion(prompt.id, "```\n# none\n```\nplain", model="right")
    store.add_prompts([prompt])
    store.add_completions([one, two])
    comparison = Comparison(prompt.id, (one.id, two.id), purpose="gold")
    person = Annotator("anna")
    seat = Assignment(comparison.id, person.id, (two.id, one.id))
    store.add_comparisons([comparison])
    store.add_annotators([person])
    store.add_assignments([seat])
    store.add_votes([
        Vote(seat.id, "ranked", ((one.id,), (two.id,)), 2, rationale="because", flags=("unsafe",), seconds_visible=9.5,
             seconds_active=7.25, created_at=datetime(2026, 5, 6, 7, 8), adjudicated=True)
    ])  # fmt: skip
    with Facts(store) as facts:
        facts.refresh()
        (ballot,) = facts.rows("SELECT * EXCLUDE (vote) FROM ballot")
        assert ballot == {
            "annotator": 0, "item": 0, "kind": 0, "source": 0, "purpose": 2, "selected": False, "again": False,
            "adjudicated": True, "verdict": 0, "answers": 2, "visible": 9.5, "active": 7.25, "untouched": None,
            "rationale": True, "flagged": True, "moment": datetime(2026, 5, 6, 7, 8),
            "day": datetime(2026, 5, 6).date(),
        }  # fmt: skip
        sign = 1 if one.id < two.id else -1
        (unit,) = facts.rows("SELECT * FROM unit")
        assert (unit["a"], unit["b"]) == tuple(sorted((one.id, two.id)))
        lengths = len(one.text), len(two.text)
        assert unit["length"] == pytest.approx(
            sign * (lengths[0] - lengths[1]) / (sum(lengths) + 1), abs=1e-6
        )
        assert [unit["headers"], unit["lists"], unit["bold"]] == pytest.approx(
            [sign / 2, sign * 2 / 3, sign / 2], abs=1e-6
        )
        (judged,) = facts.rows("SELECT grade, a_first, of FROM judgement")
        assert judged == {"grade": 2 * sign, "a_first": sign < 0, "of": 1}
        assert facts.rows("SELECT tag FROM item_tag ORDER BY tag") == [{"tag": "x"}, {"tag": "y"}]
        assert facts.value("SELECT name FROM source") == "file"
        store.write("UPDATE prompt SET tags = ['z']")
        facts.refresh()
        assert facts.rows("SELECT tag FROM item_tag") == [{"tag": "z"}]


def test_again_and_repeats(store: Store) -> None:
    (first,) = fill(store, comparisons=1)
    repeat = Comparison(
        first.prompt_id, first.completion_ids, purpose="repeat", reserved_for="p", repeats=first.id
    )
    store.add_comparisons([repeat])
    person = Annotator("p0")
    ids = tuple(first.completion_ids)
    for day, comparison in enumerate((first, repeat)):
        seat = Assignment(comparison.id, person.id, ids)
        store.add_assignments([seat])
        store.add_votes([Vote(seat.id, "tie", (ids,), created_at=START + timedelta(days=day))])
    with Facts(store) as facts:
        facts.refresh()
        assert facts.rows("SELECT purpose, again FROM ballot ORDER BY moment") == [
            {"purpose": 0, "again": False},
            {"purpose": 3, "again": True},
        ]
        assert facts.value("SELECT count(DISTINCT root) FROM item") == 1


def test_rankings_and_untouched(store: Store) -> None:
    prompt = Prompt(({"role": "user", "content": "q"},))
    answers = sorted((Completion(prompt.id, text, model=text) for text in "abcd"), key=lambda one: one.id)
    ids = tuple(one.id for one in answers)
    store.add_prompts([prompt])
    store.add_completions(answers)
    comparison = Comparison(prompt.id, ids)
    store.add_comparisons([comparison])
    for name, ranking in (
        ("p", ((ids[0],), (ids[1],), (ids[2],), (ids[3],))),
        ("q", ((ids[3], ids[1]), (ids[0],))),
    ):
        person = Annotator(name)
        seat = Assignment(comparison.id, person.id, ids)
        store.add_annotators([person])
        store.add_assignments([seat])
        store.add_votes([Vote(seat.id, "ranked", ranking)])
    with Facts(store) as facts:
        facts.refresh()
        found = facts.rows(
            "SELECT r.places, b.untouched FROM ranking r JOIN ballot b USING (vote) ORDER BY b.untouched"
        )
        assert found == [
            {"places": [2, 1, None, 1], "untouched": False},
            {"places": [1, 2, 3, 4], "untouched": True},
        ]
        models = facts.value("SELECT models FROM ranking LIMIT 1")
        names = {row["code"]: row["name"] for row in facts.rows("SELECT * FROM model")}
        assert [names[code] for code in models] == [one.model for one in answers]
        assert facts.rows("SELECT of, count(*) AS n FROM judgement GROUP BY 1 ORDER BY 1") == [
            {"of": 3, "n": 3},
            {"of": 6, "n": 6},
        ]


def test_made_anew_when_it_does_not_fit(store: Store) -> None:
    rng = random.Random(3)
    comparisons = fill(store)
    votes = [cast(store, one, "p0", rng) for one in comparisons]
    with Facts(store) as facts:
        facts.refresh()
        store.write("DELETE FROM vote WHERE id = ?", [votes[4].id])  # somebody was forgotten
        facts.refresh()
        same(store, facts)
        store.write("DELETE FROM vote")
        facts.refresh()
        assert facts.value("SELECT count(*) FROM ballot") == 0
        path = facts.path
    path.write_bytes(b"not a database")
    with Facts(store) as facts:
        facts.refresh()
        same(store, facts)
        facts._con.execute("UPDATE state SET schema = 'older'")
    with Facts(store) as facts:
        assert facts.value("SELECT count(*) FROM annotator") == 0
        facts.refresh()
        same(store, facts)


def test_remembers_until_a_vote_comes(store: Store) -> None:
    comparisons = fill(store)
    calls: list[int] = []
    with Facts(store) as facts:

        def count() -> int:
            calls.append(1)
            return int(facts.value("SELECT count(*) FROM ballot"))

        assert [facts.remember(("n",), count) for _ in range(3)] == [0, 0, 0]
        assert len(calls) == 1
        cast(store, comparisons[0], "p0", random.Random(0))
        facts.refresh()
        assert facts.remember(("n",), count) == 1
        for _ in range(2):  # a failure is not remembered
            with pytest.raises(ZeroDivisionError):
                facts.remember(("bad",), lambda: 1 // 0)


def test_filled() -> None:
    import numpy as np

    assert filled(np.ma.array([1, 2], mask=[False, True]), -1).tolist() == [1.0, -1.0]
