"""Adjudication: what a lead sees, what a decision is, what it leaves alone, and that it is as safe as any vote."""

import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from palate.data.export import export_votes
from palate.data.facts import Facts
from palate.data.importing import Source, insert, stage_files
from palate.data.journal import Journal, folder_of, read
from palate.data.reconcile import reconcile
from palate.data.records import Comparison, new_id
from palate.data.store import Store
from palate.labeling.adjudication import Adjudicator, NoSuchItem
from palate.labeling.ballots import Ballot, BallotRefused
from palate.labeling.desk import Desk, annotator
from palate.labeling.journaling import VoteJournal
from palate.labeling.opening import Plan, works_of
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.tallies import tallies
from palate.labeling.writer import Entry, NotStored
from tests.labeling.test_desk import take, vote_for
from tests.labeling.voted import ask, vote

STANDING = (
    "SELECT id, annotator_id, adjudicated, supersedes, ranking FROM current_vote ORDER BY created_at, id"
)


class Broken:
    """A journal whose disk is full for as long as it is told so."""

    def __init__(self, journal: VoteJournal) -> None:
        self.journal, self.full = journal, False

    def __call__(self, entries: Sequence[Entry]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.journal(entries)


@pytest.fixture
def journal(store: Store) -> Iterator[Broken]:
    opened = Journal(folder_of(store.path))
    yield Broken(VoteJournal(opened, store))
    opened.close()


@pytest.fixture
def desk(store: Store, journal: Broken) -> Iterator[Desk]:
    with Desk(store, journal=journal) as opened:
        yield opened


@pytest.fixture
def adjudicator(store: Store, desk: Desk) -> Adjudicator:
    return Adjudicator(store, desk)


def fresh(folder: Path) -> Path:
    """A database in a folder of its own: no journal lies beside it."""
    folder.mkdir()
    return folder / "palate.duckdb"


def split(store: Store) -> Comparison:
    """An item on which three people differ, with reasons."""
    item = ask(store, "which?", ("good", "bad"), ("secret-model-a", "secret-model-b"), tags=("t",))
    vote(
        store,
        item,
        "anna",
        "0>1",
        rationale="it is kind",
        strength=3,
        flags=(f"unsafe:{item.completion_ids[1]}",),
    )
    vote(store, item, "ben", "1>0", day=1, seconds_active=7.5)
    vote(store, item, "cleo", "tie", day=2)
    return item


def ballot(adjudicator: Adjudicator, item: Comparison, lead: str, text: str, **fields: str) -> Ballot:
    """A ballot for the answer with this text."""
    answers = adjudicator.case(item.id, lead).answers
    best = next(letter for letter, shown in answers if shown == text)
    others = tuple(letter for letter, shown in answers if shown != text)
    return Ballot("ranked", ((best,), others), vote_id=fields.pop("vote_id", "") or new_id(), **fields)  # type: ignore[arg-type]


def test_the_case_shows_texts_and_votes_but_no_model(store: Store, adjudicator: Adjudicator) -> None:
    item = split(store)
    lead = annotator(store, "lead").id
    case = adjudicator.case(item.id, lead)
    texts = dict(case.answers)
    assert sorted(texts.values()) == ["bad", "good"] and case.messages[-1]["content"] == "which?"
    assert (case.source, case.tags, case.purpose, case.decision) == ("s", ("t",), "train", None)
    anna, ben, cleo = case.votes
    assert [texts[tier[0]] for tier in anna.answer.ranking] == ["good", "bad"]
    assert (anna.annotator, anna.kind, anna.answer.rationale, anna.answer.strength) == (
        "anna",
        "human",
        "it is kind",
        3,
    )
    assert [(name, texts[str(letter)]) for name, letter in anna.answer.flags] == [("unsafe", "bad")]
    assert [texts[tier[0]] for tier in ben.answer.ranking] == ["bad", "good"]
    assert (ben.seconds_active, cleo.answer.verdict, cleo.by_me) == (7.5, "tie", False)
    assert "secret-model" not in repr(case)
    assert adjudicator.case(item.id, lead).answers == case.answers  # a reload changes nothing
    with pytest.raises(NoSuchItem, match="there is no item 'x'"):
        adjudicator.case("x", lead)


def test_letters_are_in_another_order_for_others(store: Store, adjudicator: Adjudicator) -> None:
    item = ask(store, "which?", ("a", "b", "c", "d"))
    orders = {tuple(text for _, text in adjudicator.case(item.id, f"lead{n}").answers) for n in range(20)}
    assert len(orders) > 5


def test_a_decision_is_a_vote_of_its_own_kind(store: Store, desk: Desk, adjudicator: Adjudicator) -> None:
    item, lead = split(store), annotator(store, "lead").id
    cast = adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "good", rationale="clearly"))
    assert cast.adjudicated and cast.ranking == ((item.completion_ids[0],), (item.completion_ids[1],))
    row = store.rows("SELECT * FROM current_vote WHERE adjudicated")[0]
    assert (row["id"], row["annotator_name"], row["rationale"], row["run_id"]) == (
        cast.id,
        "lead",
        "clearly",
        None,
    )
    assert store.value("SELECT state FROM assignment WHERE id = ?", [cast.assignment_id]) == "done"
    assert adjudicator.decided_since_start() == {item.id}
    decision = adjudicator.case(item.id, lead).decision
    assert decision is not None and decision.id == cast.id and decision.by_me
    assert len(adjudicator.case(item.id, lead).votes) == 3


def test_it_is_no_part_of_agreement_and_leaves_the_queue(store: Store, adjudicator: Adjudicator) -> None:
    item, lead = split(store), annotator(store, "lead").id
    with Facts(store) as facts:
        facts.refresh()
        before = tallies(facts, Scope()).counts.tolist()
        adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "good"))
        facts.refresh()
        assert tallies(facts, Scope()).counts.tolist() == before
        assert facts.value("SELECT count(*) FROM ballot WHERE adjudicated") == 1


def test_the_leads_own_answer_stays(store: Store, desk: Desk, adjudicator: Adjudicator) -> None:
    item, lead = ask(store, "which?", ("good", "bad"), overlap=3), annotator(store, "lead").id
    desk.refresh()
    shown = take(desk, lead)
    own = desk.cast_all(lead, [vote_for(shown, "A", "B")])[0]
    first = adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "bad"))
    assert {row["id"] for row in store.rows(STANDING)} == {own.id, first.id}
    second = adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "good"), replaces=first.id)
    assert {row["id"] for row in store.rows(STANDING)} == {own.id, second.id}
    assert second.assignment_id == first.assignment_id != own.assignment_id and second.supersedes == first.id


def test_the_ranking_page_knows_nothing_of_it(store: Store, desk: Desk, adjudicator: Adjudicator) -> None:
    item, lead = split(store), annotator(store, "lead").id
    desk.refresh()
    cast = adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "good"))
    assert desk.undo(lead) is None
    assert desk.recall.mine(lead, 10, None) == []
    assert desk.progress(lead).done == 0 and desk.recall.pace(lead)[:2] == (0, 0)
    with pytest.raises(BallotRefused, match="not yours"):
        desk.reopen(lead, cast.id)


def test_it_fills_no_slot_and_its_lead_is_not_asked(
    store: Store, desk: Desk, adjudicator: Adjudicator
) -> None:
    item, lead, anna = (
        ask(store, "which?", ("good", "bad")),
        annotator(store, "lead").id,
        annotator(store, "anna").id,
    )
    desk.refresh()
    held = take(desk, lead)  # the lead has it open while they decide it
    adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "good"))
    assert desk.next_items(lead, random.Random(0)) == []
    with pytest.raises(BallotRefused):
        desk.cast_all(lead, [vote_for(held, "A", "B")])
    works, _ = works_of(store, Plan())
    assert works[item.id].answers == 0 and lead in (works[item.id].seen or ())
    assert take(desk, anna).messages[-1]["content"] == "which?"
    desk.refresh()  # as after a restart
    assert desk.next_items(lead, random.Random(0)) == []


def test_sent_twice_it_is_one_decision(store: Store, adjudicator: Adjudicator) -> None:
    item, lead = split(store), annotator(store, "lead").id
    sent = ballot(adjudicator, item, lead, "good")
    first = adjudicator.decide(lead, item.id, sent)
    assert adjudicator.decide(lead, item.id, sent) == first
    assert store.value("SELECT count(*) FROM vote WHERE adjudicated") == 1
    other = ask(store, "another")
    with pytest.raises(BallotRefused, match="belongs to another vote"):
        adjudicator.decide(lead, other.id, ballot(adjudicator, other, lead, "first", vote_id=sent.vote_id))


def test_an_item_has_one_decision(store: Store, adjudicator: Adjudicator) -> None:
    item, lead, other = split(store), annotator(store, "lead").id, annotator(store, "other").id
    first = adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "good"))
    with pytest.raises(BallotRefused, match="decided this item meanwhile") as refused:
        adjudicator.decide(other, item.id, ballot(adjudicator, item, other, "bad"))
    assert refused.value.code == "answered"
    second = adjudicator.decide(other, item.id, ballot(adjudicator, item, other, "bad"), replaces=first.id)
    decisions = store.rows("SELECT id, annotator_name FROM current_vote WHERE adjudicated")
    assert decisions == [{"id": second.id, "annotator_name": "other"}]


def test_two_leads_at_once(store: Store, adjudicator: Adjudicator) -> None:
    item = split(store)
    leads = [annotator(store, f"lead{n}").id for n in range(6)]
    ballots = {lead: ballot(adjudicator, item, lead, "good") for lead in leads}
    refused: list[str] = []

    def decide(lead: str) -> None:
        try:
            adjudicator.decide(lead, item.id, ballots[lead])
        except BallotRefused as error:
            refused.append(error.code)

    threads = [threading.Thread(target=decide, args=(lead,)) for lead in leads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["answered"] * 5
    assert store.value("SELECT count(*) FROM vote WHERE adjudicated") == 1


@pytest.mark.parametrize(
    "wrong", [Ballot("ranked", (("A",), ("Z",)), vote_id="12345678"), Ballot("tie", vote_id="no"), Ballot("x", vote_id="12345678")]  # type: ignore[arg-type]
)  # fmt: skip
def test_what_does_not_fit_is_refused(store: Store, adjudicator: Adjudicator, wrong: Ballot) -> None:
    item, lead = split(store), annotator(store, "lead").id
    with pytest.raises(BallotRefused):
        adjudicator.decide(lead, item.id, wrong)
    with pytest.raises(NoSuchItem):
        adjudicator.decide(lead, "x", Ballot("tie", vote_id="12345678"))
    assert store.value("SELECT count(*) FROM vote WHERE adjudicated") == 0


def test_it_is_in_the_journal_before_it_is_acknowledged(
    store: Store, journal: Broken, adjudicator: Adjudicator, tmp_path: Path
) -> None:
    item, lead = split(store), annotator(store, "lead").id
    sent = ballot(adjudicator, item, lead, "good", rationale="why")
    journal.full = True
    for _ in range(2):
        with pytest.raises(NotStored, match="disk is full"):
            adjudicator.decide(lead, item.id, sent)
    journal.full = False
    cast = adjudicator.decide(lead, item.id, sent)
    lines = [line for line in read(folder_of(store.path)) if line["kind"] == "vote"]
    assert [(line["id"], line["adjudicated"]) for line in lines] == [(cast.id, True)]
    with Store(fresh(tmp_path / "rebuilt")) as rebuilt:
        assert reconcile(rebuilt, folder_of(store.path)).inserted == 1
        same = "SELECT v.*, a.comparison_id, a.display_order FROM vote v JOIN assignment a ON a.id = v.assignment_id WHERE v.id = ?"
        assert rebuilt.rows(same, [cast.id]) == store.rows(same, [cast.id])


def test_an_old_journal_and_an_old_database_have_no_such_column(store: Store, tmp_path: Path) -> None:
    item = ask(store, "old")
    cast = vote(store, item, "anna", "0>1")
    store.write("UPDATE vote SET adjudicated = NULL")  # what migrating an older database leaves
    journal = folder_of(store.path)
    assert reconcile(store, journal).appended == 1
    for file in journal.iterdir():  # a line of before: without the field
        lines = [line for line in read(journal)]
        old = [{k: v for k, v in line.items() if k != "adjudicated"} for line in lines]
        file.unlink()
        opened = Journal(journal)
        opened.append(old)
        opened.close()
    with Store(fresh(tmp_path / "rebuilt")) as rebuilt:
        assert reconcile(rebuilt, journal).inserted == 1
        assert rebuilt.rows("SELECT id, adjudicated FROM vote") == [{"id": cast.id, "adjudicated": False}]


def test_exported_and_imported_it_stays_what_it_is(
    store: Store, adjudicator: Adjudicator, tmp_path: Path
) -> None:
    item, lead = split(store), annotator(store, "lead").id
    cast = adjudicator.decide(lead, item.id, ballot(adjudicator, item, lead, "good"))
    for name in ("votes.jsonl", "votes.parquet"):
        export_votes(store, tmp_path / name)
        staged = tmp_path / f"staged-{name}"
        staged.mkdir()
        stage_files([Source(tmp_path / name, name)], staged, "run")
        with Store(fresh(tmp_path / f"of-{name}")) as other:
            insert(other, staged)
            found = "SELECT id, coalesce(adjudicated, false) AS adjudicated FROM vote ORDER BY id"
            assert other.rows(found) == store.rows(found)
            assert [row["id"] for row in other.rows("SELECT id FROM vote WHERE adjudicated")] == [cast.id]
