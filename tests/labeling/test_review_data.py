"""Search: against a plain search in Python over all records, word by word, page by page; queries to text and back."""

import datetime
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from palate.config import UserError
from palate.data.facts import Facts
from palate.data.records import Comparison, Prompt, new_id
from palate.data.store import Store
from palate.labeling import review_data
from palate.labeling.review_conditions import PAGE
from palate.labeling.review_data import Finder
from palate.labeling.review_query import FIELDS, Query, read, words, written
from palate.labeling.statistics.disagreement import disagreement
from palate.labeling.statistics.scope import Scope
from tests.labeling.voted import Cast, ask, ask_all, asked, made, vote, votes

WORDS = ("alpha", "Beta", "gamma", "delta", "epsilon", "the", "zeta%x", "naïve")
FLAGS = ("unsafe", "broken")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


@pytest.fixture
def facts(store: Store) -> Iterator[Facts]:
    with Facts(store) as opened:
        yield opened


def sentence(rng: random.Random, most: int = 4) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def world(store: Store, seed: int, items: int = 70, cast: int = 260) -> None:
    """A project with items of all sorts, some without votes, and votes of all sorts."""
    rng = random.Random(seed)
    stock = ask_all(
        store,
        [
            asked(
                f"{sentence(rng)} {i}",
                tuple(f"{sentence(rng)} {i} {j}" for j in range(rng.choice([2, 2, 3]))),
                source=rng.choice(["s0", "s1"]),
                tags=tuple(rng.sample(["t0", "t1"], rng.randint(0, 2))),
                purpose=rng.choice(["train", "train", "random", "gold"]),
            )
            for i in range(items)
        ],
    )
    store.write("UPDATE comparison SET created_at = TIMESTAMP '2026-01-01' + INTERVAL (rowid) HOUR")
    given: list[Cast] = []
    for name, item in itertools.islice(pairs(rng, stock[:-9]), cast):
        kind = "rule" if name == "robo" else "human"
        order = [str(n) for n in rng.sample(range(len(item.completion_ids)), len(item.completion_ids))]
        said = rng.choice([">".join(order)] * 4 + ["tie", "skip", "all_bad"])
        flags = tuple(
            rng.choice([flag, f"{flag}:{item.completion_ids[0]}"]) for flag in FLAGS if rng.random() < 0.15
        )
        day = rng.randint(0, 5) + rng.random()
        why = sentence(rng) if rng.random() < 0.3 else None
        given.append(made(item, name, said, day, kind=kind, flags=flags, rationale=why))  # type: ignore[arg-type]
    votes(store, given)
    for i, item in enumerate(rng.sample(stock[:-9], 6)):
        vote(store, item, "lead", "tie", day=6 + i / 10, assignment_id=new_id(), adjudicated=True)
    for _, seat, one in rng.sample(given, 15):  # changed since
        store.add_votes([replace(one, id=new_id(), supersedes=one.id, assignment_id=seat.id)])


def pairs(rng: random.Random, stock: list[Comparison]) -> Iterator[tuple[str, Comparison]]:
    every = [(name, item) for name in ("anna", "ben", "cleo", "dora", "robo") for item in stock]
    rng.shuffle(every)
    yield from every


def plainly(store: Store, facts: Facts, query: Query) -> list[str]:
    """What a query finds, in its order, by looking at every record."""
    items = {
        row["id"]: row
        for row in store.rows(
            "SELECT c.*, q.source, q.tags, q.messages ->> '$[#-1].content' AS prompt FROM comparison c "
            "JOIN prompt q ON q.id = c.prompt_id ORDER BY c.rowid"
        )
    }
    answers = {row["id"]: row for row in store.rows("SELECT id, text, model FROM completion")}
    all_votes = store.rows(
        "SELECT v.*, v.created_at::DATE AS day FROM current_vote v WHERE annotator_kind = ?",
        [query.scope.kind],
    )
    dated = Scope(query.scope.kind, since=query.scope.since, until=query.scope.until)
    split = disagreement(facts, dated)
    codes = {row["code"]: row["id"] for row in facts.rows("SELECT code, id FROM item")}
    expected = {
        codes[int(code)]: float(value) for code, value in zip(split.item, split.expected, strict=True)
    }

    def holds(text: str | None) -> set[str]:
        return {word for word in query.words if text and word.lower() in text.lower()}

    def fits(one: dict[str, Any]) -> bool:
        flags = {flag.partition(":")[0] for flag in one["flags"]}
        return all(
            (
                query.annotator is None or query.annotator in (one["annotator_name"], one["annotator_id"]),
                query.verdict is None or one["verdict"] == query.verdict,
                query.flag is None or (flags if query.flag == "any" else query.flag in flags),
                query.rationale is None or bool(one["rationale"]) == query.rationale,
                query.adjudicated is not True or one["adjudicated"],
                query.adjudicated is not False or query.rows == "items" or not one["adjudicated"],
                query.scope.since is None or one["day"] >= query.scope.since,
                query.scope.until is None or one["day"] <= query.scope.until,
            )
        )

    found: list[tuple[Any, ...]] = []
    for number, (name, item) in enumerate(items.items()):
        mine = [one for one in all_votes if one["comparison_id"] == name]
        chosen = [one for one in mine if fits(one)]
        texts = [answers[answer] for answer in item["completion_ids"]]
        in_prompt = holds(item["prompt"])
        in_both = in_prompt | {word for answer in texts for word in holds(answer["text"])}
        everywhere = in_both | {word for one in mine for word in holds(one["rationale"])}
        if not all(
            (
                query.scope.source is None or item["source"] == query.scope.source,
                query.scope.tag is None or query.scope.tag in item["tags"],
                query.purpose is None or item["purpose"] == query.purpose,
                query.model is None or query.model in [answer["model"] for answer in texts],
                query.item in (None, name) and query.prompt in (None, item["prompt_id"]),
                query.disagreement is None or expected.get(name, -1) >= query.disagreement,
                not (query.about_votes or query.answered) or chosen,
                query.answered is not False or not chosen,
            )
        ):
            continue
        rank = 3 if in_prompt == set(query.words) else 2 if in_both == set(query.words) else 1
        first: Any = {"newest": 0, "match": -rank, "disagreement": -expected.get(name, -1.0)}[query.sort]
        if query.rows == "items":
            if query.adjudicated is False and any(one["adjudicated"] for one in mine):
                continue
            if everywhere == set(query.words):
                latest = max((one["created_at"] for one in chosen), default=item["created_at"])
                found.append((first, -latest.timestamp(), name))
        else:
            for one in chosen:
                if in_both | holds(one["rationale"]) == set(query.words):
                    place = (first, number) if query.sort == "disagreement" else first
                    found.append((place, -one["created_at"].timestamp(), one["id"]))
    return [name for *_, name in sorted(found)]


def whole(finder: Finder, facts: Facts, query: Query) -> list[str]:
    """The ids on all pages of a query."""
    first = finder.page(facts, query)
    pages = [first, *(finder.page(facts, query, number) for number in range(2, first.pages + 1))]
    ids = [str(row["item" if query.rows == "items" else "vote"]) for page in pages for row in page.rows]
    assert len(ids) == first.total and all(len(page.rows) == PAGE for page in pages[:-1])
    return ids


CASES = [
    {}, {"rows": "votes"}, {"kind": "rule"}, {"kind": "model"}, {"source": "s1"}, {"tag": "t0"}, {"source": "none"},
    {"model": "m1"}, {"model": "none"}, {"annotator": "anna"}, {"annotator": "anna", "verdict": "tie"},
    {"verdict": "skip"}, {"flag": "any"}, {"flag": "unsafe"}, {"flag": "unsafe", "annotator": "ben"},
    {"purpose": "gold"}, {"disagreement": "0.3", "sort": "disagreement"}, {"sort": "disagreement"},
    {"rationale": "yes"}, {"rationale": "no"}, {"adjudicated": "yes"}, {"adjudicated": "no"}, {"answered": "no"},
    {"answered": "yes"}, {"since": "2026-03-04"}, {"since": "2026-03-03", "until": "2026-03-04", "verdict": "ranked"},
    {"q": "alpha"}, {"q": "ALPHA the"}, {"q": "beta gamma delta"}, {"q": "zeta%x"}, {"q": "naïve", "tag": "t1"},
    {"q": '"alpha beta"'}, {"q": "epsilon", "sort": "newest"}, {"q": "gamma", "disagreement": "0.2", "source": "s0"},
    {"q": "nowhere"}, {"q": "the", "annotator": "cleo", "rationale": "yes"}, {"prompt": "none"}, {"item": "none"},
]  # fmt: skip


@pytest.mark.parametrize("few", [0.15, 0.0, 1.0])  # how few items are searched apart from the others
def test_every_condition_as_a_plain_search(
    store: Store, facts: Facts, few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palate.labeling.review_conditions.FEW", few)
    monkeypatch.setattr(review_data, "FEW", few)
    monkeypatch.setattr(review_data, "BLOCK", 5)  # so that a page of votes takes several looks
    world(store, seed=int(10 * few))
    facts.refresh()
    finder = Finder(store)
    for asked_for in CASES:
        for rows in ("items", "votes"):
            query = read({**asked_for, "rows": rows})
            assert whole(finder, facts, query) == plainly(store, facts, query), (asked_for, rows)


def test_an_item_and_a_prompt_by_id(store: Store, facts: Facts) -> None:
    one, _ = ask(store, "one"), ask(store, "two")
    facts.refresh()
    for asked_for in ({"item": one.id}, {"prompt": one.prompt_id}):
        assert [row["item"] for row in Finder(store).page(facts, read(asked_for)).rows] == [one.id]


def test_a_row_says_what_is_known(store: Store, facts: Facts) -> None:
    item = ask(store, "The prompt", ("good one", "bad one"), ("m-a", "m-b"), "s", ("b", "a"))
    vote(
        store,
        item,
        "anna",
        "0>1",
        rationale="a reason",
        strength=2,
        flags=("unsafe:x", "unsafe:y"),
        seconds_active=3.0,
    )
    vote(store, item, "ben", "tie", day=1)
    vote(store, item, "lead", "1>0", day=2, assignment_id="d", adjudicated=True)
    facts.refresh()
    finder = Finder(store)
    assert finder.page(facts, read({"q": "good PROMPT"})).rows == (
        {
            "prompt": "The prompt", "source": "s", "tags": "b, a", "purpose": "train", "prompt_id": item.prompt_id,
            "item": item.id, "answers": 2, "models": "m-a, m-b", "votes": 3,
            "split": "1 : 1 : 0" if item.completion_ids[0] < item.completion_ids[1] else "0 : 1 : 1",
            "disagreement": pytest.approx(0.285714, abs=1e-6), "adjudicated": "yes", "found": "answers",
            "latest": "2026-03-04 00:00:00",
        },
    )  # fmt: skip
    rows = finder.page(facts, read({"rows": "votes"})).rows
    assert [(row["annotator"], row["ranking"], row["adjudicated"]) for row in rows] == [
        ("lead", "m-b > m-a", "yes"), ("ben", "m-a = m-b", ""), ("anna", "m-a > m-b", ""),
    ]  # fmt: skip
    assert {key: rows[2][key] for key in ("verdict", "strength", "rationale", "flags", "active", "visible", "at")} == {
        "verdict": "ranked", "strength": 2, "rationale": "a reason", "flags": "unsafe", "active": 3.0, "visible": None,
        "at": "2026-03-02 00:00:00",
    }  # fmt: skip


def test_words_are_found_in_texts_and_nowhere_else(store: Store, facts: Facts) -> None:
    turns = (
        {"role": "system", "content": 'Say "hi"\nnow'},
        {"role": "user", "content": "tab\there (50%) a_b C:\\new"},
    )
    store.add_prompts([Prompt(turns, id="p")])
    item = ask(store, "x", ("first [x] Straße", "second"))
    store.write("UPDATE comparison SET prompt_id = 'p' WHERE id = ?", [item.id])
    facts.refresh()
    finder = Finder(store)
    for there in (
        '"hi"',
        "now",
        "tab here",
        '"tab here"',
        "(50%)",
        "a_b",
        "c:\\NEW",
        "[X]",
        "STRASSE"[:3],
        "say second",
    ):
        assert finder.page(facts, read({"q": there})).total == 1, there
    for absent in ("user", "role", "content", "system", "nnow", "axb", "50.", '"here tab"', "hi)"):
        assert finder.page(facts, read({"q": absent})).total == 0, absent


def test_new_votes_and_comparisons_are_found(store: Store, facts: Facts) -> None:
    finder = Finder(store)
    assert finder.page(facts, Query()).total == 0
    first = ask(store, "one")
    assert [row["item"] for row in finder.page(facts, Query()).rows] == [first.id]
    second = ask(store, "two", models=("other", "m0"))
    vote(store, first, "anna", "0>1", day=9)
    facts.refresh()
    found = {row["item"]: row["votes"] for row in finder.page(facts, read({"source": "s"})).rows}
    assert found == {first.id: 1, second.id: 0}
    assert [row["item"] for row in finder.page(facts, read({"model": "other"})).rows] == [second.id]


def test_a_page_behind_the_last_is_empty(store: Store, facts: Facts) -> None:
    items = ask_all(store, [asked(f"p{i}") for i in range(PAGE + 1)])
    votes(store, [made(item, "anna", "0>1", i / 100) for i, item in enumerate(items)])
    facts.refresh()
    finder = Finder(store)
    for rows in ("items", "votes"):
        for sort in ("newest", "disagreement"):
            found = [finder.page(facts, read({"rows": rows, "sort": sort}), number) for number in (1, 2, 3)]
            assert [(len(page.rows), page.total, page.pages) for page in found] == [
                (50, 51, 2),
                (1, 51, 2),
                (0, 51, 2),
            ]


def test_pages_fit_when_all_votes_are_of_one_moment(store: Store, facts: Facts) -> None:
    items = ask_all(store, [asked(f"p{i}") for i in range(120)])
    votes(store, [made(item, name, "0>1") for item in items for name in ("anna", "ben")])
    facts.refresh()
    for asked_for in (
        {"rows": "votes"},
        {"rows": "votes", "sort": "disagreement"},
        {"rows": "votes", "q": "first"},
    ):
        assert len(set(whole(Finder(store), facts, read(asked_for)))) == 240


# -- queries ---------------------------------------------------------------------------------------------------------


def test_a_query_is_text_and_back() -> None:
    assert written(Query()) == ""
    assert read({}) == Query()
    full = {
        "kind": "rule", "source": "a b", "tag": "t&x", "since": "2026-01-02", "until": "2026-02-03", "q": 'one "two three"',
        "model": "m", "annotator": "anna", "verdict": "tie", "flag": "unsafe", "purpose": "gold", "disagreement": "0.25",
        "rationale": "no", "adjudicated": "yes", "answered": "yes", "item": "i", "prompt": "p", "rows": "votes",
        "sort": "newest",
    }  # fmt: skip
    assert set(full) == set(FIELDS)
    query = read(full)
    assert dict(parse_qsl(written(query)[1:])) == full
    assert read(dict(parse_qsl(written(query)[1:]))) == query
    assert query.scope == Scope("rule", "a b", "t&x", datetime.date(2026, 1, 2), datetime.date(2026, 2, 3))
    assert read({"q": "x"}).sort == "match" and written(read({"q": "x"})) == "?q=x"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("verdict", "x", "verdict is one of ranked, tie, all_bad, skip, got 'x'"),
        ("flag", "x", "flag is one of any, unsafe"),
        ("purpose", "x", "purpose is one of train"),
        ("rows", "x", "rows is one of items, votes"),
        ("sort", "x", "sort is one of newest, disagreement, match"),
        ("rationale", "maybe", "rationale is yes or no, got 'maybe'"),
        ("disagreement", "2", "disagreement is a number from 0 to 1, got '2'"),
        ("disagreement", "nan", "disagreement is a number from 0 to 1"),
        ("since", "x", "since is a day like"),
        ("kind", "x", "kind is one of human"),
        ("q", "a b c d e f g h i", "q takes at most 8 words, got 9"),
        ("model", "x" * 501, "model takes at most 500 characters, got 501"),
        ("colour", "red", "there is no field 'colour' to search by"),
    ],
)
def test_a_bad_value_is_named(field: str, value: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        read({field: value})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_words_and_phrases() -> None:
    assert words('one  "two  three" ONE "open') == ("ONE", "two three", "open")
    assert words('a "b c" d') == ("a", "b c", "d")
    assert words('""  ') == ()
