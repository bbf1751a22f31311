"""Saved views: what each aggregation and filter gives training, on votes made by hand; how a view is kept."""

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from palate.config import UserError
from palate.data.preferences import SCHEMA, rankings
from palate.data.records import (
    Annotator,
    AnnotatorKind,
    Assignment,
    Comparison,
    Completion,
    Prompt,
    Purpose,
    Verdict,
    Vote,
)
from palate.data.store import Store
from palate.data.training_views import (
    Definition,
    View,
    annotator_ids,
    checked_name,
    names_of,
    view,
    views,
)

NOON = datetime(2026, 3, 10, 12)
Pair = tuple[str, str, float]  # (vote, "0>1" or "0=1" by place in the comparison, weight)


class Ballots:
    """Makes comparisons and votes on them, in few words; votes are v1, v2, ... a minute apart."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.votes = 0

    def compare(
        self, text: str, k: int = 2, purpose: Purpose = "train", source: str = "test",
        tags: tuple[str, ...] = (), repeats: str | None = None,
    ) -> Comparison:  # fmt: skip
        prompt = Prompt(({"role": "user", "content": text},), source, tags=tags)
        # in the order of their ids, so that a tie's first completion is the one at the smaller place
        made = [Completion(prompt.id, f"{text} / answer {i}", finish_reason="stop") for i in range(k)]
        ids = tuple(sorted(one.id for one in made))
        comparison = Comparison(prompt.id, ids, purpose=purpose, repeats=repeats)
        self.store.add_prompts([prompt])
        self.store.add_completions(made)
        self.store.add_comparisons([comparison])
        return comparison

    def vote(
        self, on: Comparison, said: str, name: str = "ann", strength: int | None = None,
        kind: AnnotatorKind = "human", at: datetime | None = None, adjudicated: bool = False,
        verdict: Verdict | None = None,
    ) -> None:  # fmt: skip
        """`said` is a ranking by place: "0>1", "1=2>0"; empty for a vote without one."""
        annotator = Annotator(name, kind)
        assignment = Assignment(on.id, annotator.id, on.completion_ids)
        tiers = [tier.split("=") for tier in said.split(">")] if said else []
        ranking = tuple(tuple(on.completion_ids[int(place)] for place in tier) for tier in tiers)
        self.votes += 1
        self.store.add_annotators([annotator])
        self.store.add_assignments([assignment])
        self.store.add_votes(
            [
                Vote(
                    assignment.id, verdict or ("tie" if len(ranking) == 1 else "ranked"), ranking, strength,
                    created_at=at or NOON.replace(minute=self.votes % 60), adjudicated=adjudicated,
                    id=f"v{self.votes}",
                )
            ]
        )  # fmt: skip

    def taken(
        self, definition: Definition, weights: dict[str, float] | None = None
    ) -> dict[str, list[tuple[Any, ...]]]:
        """By prompt's text what training sees: (vote, "0>1", weight), sorted by vote."""
        by_id = {Annotator(name).id: weight for name, weight in (weights or {}).items()}
        table = rankings(self.store, view=View("a", definition, by_id if weights is not None else None))
        assert table.schema == SCHEMA
        found = {}
        for row in table.to_pylist():
            place = row["completion_ids"].index
            assert [place(one) for one in row["completion_ids"]] == list(range(len(row["completion_ids"])))
            assert all(
                p["shown_first"] == (p["winner"] < p["loser"]) for p in row["pairs"]
            )  # shown in this order
            found[row["completions"][0].split(" / ")[0]] = sorted(
                (p["vote_id"], f"{p['winner']}{'=' if p['tie'] else '>'}{p['loser']}", round(p["weight"], 9))
                for p in row["pairs"]
            )
        return found


@pytest.fixture
def ballots(tmp_path: Path) -> Iterator[Ballots]:
    with Store(tmp_path / "palate.duckdb") as store:
        yield Ballots(store)


def fill(ballots: Ballots) -> None:
    """Five comparisons: 2 to 1, one vote, a split, all but a tie, and three completions ranked twice."""
    two = ballots.compare("two to one")
    for said, name, strength in (("0>1", "ann", 3), ("0>1", "bob", 1), ("1>0", "cy", 2)):
        ballots.vote(two, said, name, strength)
    ballots.vote(ballots.compare("single"), "1>0", "ann")
    split = ballots.compare("split")
    ballots.vote(split, "0>1", "ann", 2)
    ballots.vote(split, "1>0", "bob", 0)
    tied = ballots.compare("tied")
    for said, name in (("0=1", "ann"), ("0=1", "bob"), ("1>0", "cy")):
        ballots.vote(tied, said, name, 0 if "=" in said else 3)
    three = ballots.compare("three", 3)
    ballots.vote(three, "0>1=2", "ann")
    ballots.vote(three, "0>1", "bob")


def test_by_vote_without_filters_is_what_training_takes_anyway(ballots: Ballots) -> None:
    fill(ballots)
    for purpose in ("random", "repeat", "gold", "eval"):
        ballots.vote(ballots.compare(purpose, purpose=purpose), "0>1")  # type: ignore[arg-type]
    ballots.vote(ballots.compare("a rule's", source="elsewhere"), "0>1", "rule", kind="rule")
    ballots.vote(ballots.compare("two to one"), "1>0", "dan", adjudicated=True)
    plain = View("plain")
    assert rankings(ballots.store).num_rows == 8
    assert rankings(ballots.store, view=plain).equals(rankings(ballots.store))
    assert rankings(ballots.store, "human", "test", view=plain).equals(
        rankings(ballots.store, "human", "test")
    )
    regex = r"(\w+)"
    assert rankings(ballots.store, split_by=regex, view=plain).equals(rankings(ballots.store, split_by=regex))


def test_majority(ballots: Ballots) -> None:
    fill(ballots)
    assert ballots.taken(Definition("majority")) == {
        "two to one": [("v1", "0>1", 0.5), ("v2", "0>1", 0.5)],  # one decision, shared by those who made it
        "single": [("v4", "1>0", 1.0)],
        "split": [("v5", "0=1", 0.5), ("v6", "0=1", 0.5)],  # an even split is a tie
        "tied": [("v7", "0=1", 0.5), ("v8", "0=1", 0.5)],
        # three pairs share the comparison's 1: 0>1 twice, 0>2 and 1=2 once
        "three": [
            ("v10", "0>1", round(1 / 6, 9)), ("v10", "0>2", round(1 / 3, 9)), ("v10", "1=2", round(1 / 3, 9)),
            ("v11", "0>1", round(1 / 6, 9)),
        ],
    }  # fmt: skip


def test_majority_keeps_the_strength_of_who_gave_the_label(ballots: Ballots) -> None:
    fill(ballots)
    rows = rankings(ballots.store, view=View("a", Definition("majority"))).to_pylist()
    strengths = {
        row["completions"][0].split(" / ")[0]: [pair["strength"] for pair in row["pairs"]] for row in rows
    }
    assert strengths["two to one"] == [3, 1]
    assert strengths["split"] == [None, None]  # nobody said how strong this tie is
    assert strengths["tied"] == [0, 0]


@pytest.mark.parametrize(
    ("said", "label"),
    [
        (("0>1", "0=1"), "0=1"),  # as many for a tie as for a winner: no winner
        (("0>1", "1>0", "0=1"), "0=1"),
        (("0>1", "0>1", "1>0", "0=1"), "0>1"),  # half of the votes, and more than any other label
        (("1>0", "1>0", "1>0", "0>1", "0>1", "0=1", "0=1"), "1>0"),
        (("0>1", "0=1", "0=1", "1>0"), "0=1"),
    ],
)
def test_the_most_frequent_label_wins(ballots: Ballots, said: tuple[str, ...], label: str) -> None:
    pair = ballots.compare("pair")
    for number, one in enumerate(said):
        ballots.vote(pair, one, f"annotator {number}")
    assert {name for _, name, _ in ballots.taken(Definition("majority"))["pair"]} == {label}
    kept = ballots.taken(Definition("majority", ties=False))
    assert kept == ({} if "=" in label else ballots.taken(Definition("majority")))


def test_reliability(ballots: Ballots) -> None:
    fill(ballots)
    # the mean of the weights, 1, is what dan would weigh; cy is no better than chance and doesn't count
    weights = {"ann": 2.0, "bob": 1.0, "cy": 0.0}
    one = 9 / (2 + 1 + 2 + 2 + 1 + 2 + 1 + 2 + 1)  # nine votes are kept, and the mean vote weighs 1
    third = round(2 * one / 3, 9)
    assert ballots.taken(Definition("reliability"), weights) == {
        "two to one": [("v1", "0>1", round(2 * one, 9)), ("v2", "0>1", round(one, 9))],
        "single": [("v4", "1>0", round(2 * one, 9))],
        "split": [("v5", "0>1", round(2 * one, 9)), ("v6", "1>0", round(one, 9))],
        "tied": [("v7", "0=1", round(2 * one, 9)), ("v8", "0=1", round(one, 9))],
        "three": [
            ("v10", "0>1", third),
            ("v10", "0>2", third),
            ("v10", "1=2", third),
            ("v11", "0>1", round(one, 9)),
        ],
    }


def test_reliability_of_unknown_annotators(ballots: Ballots) -> None:
    pair = ballots.compare("pair")
    for said, name in (("0>1", "ann"), ("1>0", "bob"), ("1>0", "new")):
        ballots.vote(pair, said, name)
    found = ballots.taken(Definition("reliability"), {"ann": 3.0, "bob": 1.0, "away": 2.0})["pair"]
    assert found == [("v1", "0>1", 1.5), ("v2", "1>0", 0.5), ("v3", "1>0", 1.0)]  # of 3, 1, 2: the mean is 2
    for weights in ({}, None):  # nothing is known of anybody
        assert [weight for *_, weight in ballots.taken(Definition("reliability"), weights)["pair"]] == [
            1,
            1,
            1,
        ]
    with pytest.raises(UserError, match="no annotator of this view is better than chance"):
        ballots.taken(Definition("reliability"), {"ann": 0.0})


def test_an_adjudicated_vote_decides(ballots: Ballots) -> None:
    pair = ballots.compare("pair")
    for said, name in (("0>1", "ann"), ("0>1", "bob"), ("1>0", "cy")):
        ballots.vote(pair, said, name)
    ballots.vote(pair, "1>0", "lead", adjudicated=True)
    other = ballots.compare("other")
    ballots.vote(other, "0>1", "ann")
    assert len(ballots.taken(Definition())["pair"]) == 4  # as any vote
    assert ballots.taken(Definition("majority")) == {
        "pair": [("v4", "1>0", 1.0)], "other": [("v5", "0>1", 1.0)]
    }  # fmt: skip
    # it weighs as the most reliable annotator's; there is nothing to agree on
    weights = {"ann": 1.0, "bob": 3.0}
    assert ballots.taken(Definition("reliability", min_agreement=0.9), weights) == {
        "pair": [("v4", "1>0", 1.0)]
    }
    assert ballots.taken(Definition("reliability"), weights) == {
        "pair": [("v4", "1>0", 1.5)], "other": [("v5", "0>1", 0.5)]
    }  # fmt: skip
    # who is excluded decides nothing
    without = Definition("majority", exclude=(Annotator("lead").id,))
    assert [label for _, label, _ in ballots.taken(without)["pair"]] == ["0>1", "0>1"]


def test_adjudicated_as_all_bad(ballots: Ballots) -> None:
    pair = ballots.compare("pair")
    ballots.vote(pair, "0>1", "ann")
    ballots.vote(pair, "", "lead", verdict="skip", adjudicated=True)
    assert "pair" in ballots.taken(Definition("majority"))  # the lead had nothing to say
    ballots.vote(pair, "", "other lead", verdict="all_bad", adjudicated=True)
    assert ballots.taken(Definition("majority")) == {}
    assert "pair" in ballots.taken(Definition())


def test_the_first_answer_of_an_annotator_counts(ballots: Ballots) -> None:
    pair = ballots.compare("pair")
    again = ballots.compare("pair", purpose="repeat", repeats=pair.id)
    ballots.vote(again, "1>0", "ann")
    ballots.vote(pair, "0>1", "ann", at=NOON.replace(hour=9))  # said earlier
    ballots.vote(pair, "1>0", "bob")
    assert [label for _, label, _ in ballots.taken(Definition("majority"))["pair"]] == ["0=1", "0=1"]
    assert rankings(ballots.store, view=View("a", Definition("majority"))).num_rows == 1
    assert rankings(ballots.store, view=View("a", Definition("reliability"), {})).num_rows == 1
    assert rankings(ballots.store, view=View("a")).num_rows == 2


def test_strength(ballots: Ballots) -> None:
    fill(ballots)

    def votes(**asked: Any) -> dict[str, list[str]]:
        return {
            text: [f"{vote} {label}" for vote, label, _ in pairs]
            for text, pairs in ballots.taken(Definition(**asked)).items()
        }

    assert votes(min_strength=2) == {
        "two to one": ["v1 0>1", "v3 1>0"],
        "split": ["v5 0>1"],
        "tied": ["v7 0=1", "v8 0=1", "v9 1>0"],  # a tie has no strength
        "three": ["v10 1=2"],  # of three completions nobody was asked
    }
    assert votes(min_strength=2, ties=False) == {
        "two to one": ["v1 0>1", "v3 1>0"], "split": ["v5 0>1"], "tied": ["v9 1>0"]
    }  # fmt: skip
    assert votes(min_strength=2, ties=False, unknown_strength=True) == {
        "two to one": ["v1 0>1", "v3 1>0"], "single": ["v4 1>0"], "split": ["v5 0>1"], "tied": ["v9 1>0"],
        "three": ["v10 0>1", "v10 0>2", "v11 0>1"],
    }  # fmt: skip
    assert "v6 1>0" in votes(min_strength=1)["split"]  # hardly counts as slightly
    # weak votes count as if they had never been given: 1 to 1 is a split
    assert votes(min_strength=2, aggregation="majority")["two to one"] == ["v1 0=1", "v3 0=1"]


def test_what_a_vote_has_left_keeps_its_weight(ballots: Ballots) -> None:
    fill(ballots)
    third = round(1 / 3, 9)
    assert ballots.taken(Definition(ties=False))["three"] == [
        ("v10", "0>1", third), ("v10", "0>2", third), ("v11", "0>1", 1.0)
    ]  # fmt: skip
    assert ballots.taken(Definition("majority", ties=False))["three"] == [
        ("v10", "0>1", round(1 / 6, 9)), ("v10", "0>2", third), ("v11", "0>1", round(1 / 6, 9))
    ]  # fmt: skip


def test_agreement(ballots: Ballots) -> None:
    fill(ballots)

    def votes(share: float, **asked: Any) -> dict[str, list[str]]:
        found = ballots.taken(Definition(min_agreement=share, **asked))
        return {text: [vote for vote, _, _ in pairs] for text, pairs in found.items()}

    # 2 of 3, 1 of 1, 1 of 2, 2 of 3, and of three completions 0>1 2 of 2, the other pairs 1 of 1
    assert votes(0.5) == {
        "two to one": ["v1", "v2", "v3"], "split": ["v5", "v6"], "tied": ["v7", "v8", "v9"], "three": ["v10", "v11"]
    }  # fmt: skip
    assert votes(2 / 3, aggregation="majority") == {
        "two to one": ["v1", "v2"], "tied": ["v7", "v8"], "three": ["v10", "v11"]
    }  # fmt: skip
    assert votes(0.67) == {"three": ["v10", "v11"]}
    assert votes(1.0, keep_single=True) == {"single": ["v4"], "three": ["v10", "v10", "v10", "v11"]}
    assert votes(0.6, ties=False, aggregation="majority") == {
        "two to one": ["v1", "v2"],
        "three": ["v10", "v11"],
    }


def test_who_where_and_when(ballots: Ballots) -> None:
    rows: list[tuple[str, str, AnnotatorKind, str, tuple[str, ...], Purpose, datetime]] = [
        ("p1", "ann", "human", "ideas", ("hard",), "train", datetime(2026, 3, 1, 23, 59)),
        ("p2", "ann", "human", "other", (), "random", datetime(2026, 3, 2)),
        ("p3", "bob", "human", "ideas", ("hard", "new"), "repeat", datetime(2026, 3, 2, 23, 59)),
        ("p4", "judge", "model", "ideas", (), "train", datetime(2026, 3, 3)),
        ("p5", "rule", "rule", "other", (), "gold", datetime(2026, 3, 3)),
    ]
    for text, name, kind, source, tags, purpose, at in rows:
        ballots.vote(ballots.compare(text, 2, purpose, source, tags), "0>1", name, kind=kind, at=at)

    def texts(**asked: Any) -> str:
        return " ".join(sorted(ballots.taken(Definition(**asked))))

    assert texts() == "p1 p2 p3 p4"
    assert texts(exclude=(Annotator("ann").id, Annotator("judge", "model").id)) == "p3"
    assert texts(kinds=("human",)) == "p1 p2 p3"
    assert texts(kinds=("rule", "model"), purposes=("train", "gold")) == "p4 p5"
    assert texts(source="ideas") == "p1 p3 p4"
    assert texts(tag="hard") == "p1 p3"
    assert texts(purposes=("repeat",)) == "p3"
    assert texts(since=date(2026, 3, 2)) == "p2 p3 p4"
    assert texts(until=date(2026, 3, 2)) == "p1 p2 p3"
    assert texts(since=date(2026, 3, 2), until=date(2026, 3, 2), kinds=("human",), source="ideas") == "p3"
    for aggregation in ("majority", "reliability"):
        assert texts(aggregation=aggregation, source="ideas", since=date(2026, 3, 2), tag="new") == "p3"


def test_narrowed_by_flags(ballots: Ballots) -> None:
    ballots.vote(ballots.compare("p1", source="s1"), "0>1", "ann")
    ballots.vote(ballots.compare("p2", source="s2"), "0>1", "rule", kind="rule")
    ballots.vote(ballots.compare("p1", source="s1"), "1>0", "rule", kind="rule")
    majority = View("m", Definition("majority"))
    assert [len(row["pairs"]) for row in rankings(ballots.store, "human", view=majority).to_pylist()] == [1]
    assert rankings(ballots.store, "all", "s2", view=majority).num_rows == 1
    people = View("people", Definition(kinds=("human",), source="s1"))
    assert people.narrowed("human", "s1").definition == people.definition
    with pytest.raises(UserError, match="'people' takes votes by human annotators, --annotators rule leaves"):
        rankings(ballots.store, "rule", view=people)
    with pytest.raises(UserError, match="'people' takes the source 's1', --source s2 leaves nothing"):
        rankings(ballots.store, source="s2", view=people)


def test_saving(ballots: Ballots) -> None:
    store = ballots.store
    assert views(store) == []
    with pytest.raises(UserError, match="there is no view 'careful': none is saved yet"):
        view(store, "careful")
    careful = Definition(
        "reliability", 2, True, False, 0.6, True, ("a1", "a2"), ("human",), "ideas", "hard", ("train",),
        date(2026, 1, 2), date(2026, 3, 4),
    )  # fmt: skip
    store.put_view("careful", careful.as_dict(), {"a3": 1.25, "a4": 0.1 + 0.2}, "lead")
    store.put_view("plain", Definition().as_dict(), None, None)
    found = view(store, "careful")
    assert (found.definition, found.weights, found.created_by) == (
        careful,
        {"a3": 1.25, "a4": 0.1 + 0.2},
        "lead",
    )
    assert found.created_at is not None
    assert found.record() == {
        "name": "careful", "aggregation": "reliability", "min_strength": 2, "unknown_strength": True,
        "ties": False, "min_agreement": 0.6, "keep_single": True, "exclude": ["a1", "a2"], "kinds": ["human"],
        "source": "ideas", "tag": "hard", "purposes": ["train"], "since": "2026-01-02", "until": "2026-03-04",
        "saved_at": f"{found.created_at:%Y-%m-%dT%H:%M:%S}Z",
    }  # fmt: skip
    store.put_view("careful", Definition("majority").as_dict(), None, "lead")
    assert [(one.name, one.definition, one.weights) for one in views(store)] == [
        ("careful", Definition("majority"), None), ("plain", Definition(), None)
    ]  # fmt: skip
    with pytest.raises(UserError, match="no view 'other': there are careful, plain"):
        view(store, "other")
    store.delete_view("careful")
    assert [one.name for one in views(store)] == ["plain"]


def test_annotators_by_name(ballots: Ballots) -> None:
    people = [Annotator("ann"), Annotator("bob"), Annotator("ann", "rule")]
    ballots.store.add_annotators(people)
    assert set(annotator_ids(ballots.store, ["ann"])) == {people[0].id, people[2].id}
    assert annotator_ids(ballots.store, ["bob", people[1].id]) == (people[1].id,)
    assert annotator_ids(ballots.store, []) == ()
    assert names_of(ballots.store, [people[1].id, "nobody"]) == {people[1].id: "bob"}
    with pytest.raises(UserError, match="there is no annotator 'dan'"):
        annotator_ids(ballots.store, ["bob", "dan"])


def test_in_words() -> None:
    assert Definition().in_words() == ["each vote as it is"]
    full = Definition(
        "reliability", 2, True, False, 0.6, True, ("a1", "a2"), ("human", "model"), "ideas", "hard",
        ("train", "gold"), date(2026, 1, 2), date(2026, 3, 4),
    )  # fmt: skip
    assert full.in_words()[4] == "without 2 annotators"
    assert Definition(exclude=("a1",)).in_words() == ["each vote as it is", "without 1 annotator"]
    assert full.in_words({"a1": "anna"}) == [
        "votes weighted by reliability", "strength 2 or more, or of unknown strength", "no ties",
        "agreement of 60 % or more, or a single vote", "without anna, a2", "votes by human and model annotators",
        "source ideas", "tag hard", "purpose train or gold", "since 2026-01-02", "until 2026-03-04",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"aggregation": "mean"}, "aggregation: 'mean' is not one of vote, majority, reliability"),
        ({"agregation": "vote"}, "a view has no setting 'agregation'; known are aggregation, exclude"),
        ({"min_strength": 0}, "min_strength is 1 (slightly better), 2 (better) or 3 (much better), got 0"),
        ({"min_strength": 2.0}, "the setting 'min_strength' of a view can't be 2.0"),
        ({"min_strength": True}, "can't be True"),
        ({"min_agreement": 60}, "min_agreement is a share above 0 and at most 1, such as 0.6, got 60"),
        ({"min_agreement": 0}, "got 0"),
        ({"min_agreement": float("nan")}, "got nan"),
        ({"unknown_strength": True}, "unknown_strength goes with min_strength, which is not set"),
        ({"keep_single": True}, "keep_single goes with min_agreement"),
        ({"ties": "no"}, "the setting 'ties' of a view can't be 'no'"),
        ({"ties": None}, "the setting 'ties' of a view can't be None"),
        ({"kinds": ["person"]}, "kinds: 'person' is not one of human, rule, model"),
        ({"kinds": "human"}, "the setting 'kinds' of a view can't be 'human'"),
        ({"purposes": ["eval"]}, "purposes: 'eval' is not one of train, random, repeat, gold"),
        ({"purposes": []}, "purposes: name at least one of"),
        ({"since": "yesterday"}, "the setting 'since' of a view can't be 'yesterday'"),
        ({"since": "2026-03-04", "until": "2026-03-03"}, "no day is both since 2026-03-04 and until 2026-03-03"),
        ({"source": 3}, "the setting 'source' of a view can't be 3"),
    ],
)  # fmt: skip
def test_a_definition_that_makes_no_sense(values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        Definition.of(values)
    assert says in str(error.value)


def test_a_definition_survives_json() -> None:
    for one in (
        Definition(),
        Definition("majority", 3, ties=False, min_agreement=1, since=date(2026, 1, 1), exclude=("a",)),
    ):
        assert Definition.of(one.as_dict()) == one


def test_names() -> None:
    for name in ("careful", "2026-03_b", "A", "x" * 64):
        assert checked_name(name) == name
    for name in ("", "-a", "a b", "a/b", "a.b", "ä", "x" * 65, "a\n"):
        with pytest.raises(UserError, match="a view's name has up to 64 letters, digits, hyphens"):
            checked_name(name)
