"""The writer: what is acknowledged is committed and in the journal; what fails is told, and can be sent again."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from random import Random

import duckdb
import pytest

from palate.config import UserError
from palate.data.journal import Journal, read
from palate.data.records import Assignment, Vote, new_id
from palate.data.store import Store, now
from palate.labeling.ballots import Ballot, BallotRefused
from palate.labeling.desk import Desk, annotator
from palate.labeling.journaling import VoteJournal
from palate.labeling.writer import Change, Entry, NotStored, Writer
from tests.labeling.conftest import fill
from tests.labeling.test_desk import take, vote_for


def change(store: Store, vote_id: str = "", assignment: Assignment | None = None) -> Change:
    """A vote on a comparison of its own."""
    assignment = assignment or Assignment(new_id(), "anna", ("a", "b"))
    vote = Vote(assignment.id, "skip", created_at=now(), id=vote_id or new_id())
    return Change(entries=[Entry(vote, assignment, None)], opened=[assignment])


def test_many_at_once_are_few_commits(store: Store) -> None:
    writer = Writer(store, None)
    futures = [writer.submit(change(store)) for _ in range(200)]
    wait(futures)
    writer.close()
    assert all(future.exception() is None for future in futures)
    assert store.value("SELECT count(*) FROM vote") == 200
    assert len(writer.commit_seconds) < 100


def test_a_bad_change_harms_no_other(store: Store) -> None:
    writer = Writer(store, None)
    writer.submit(change(store, "the-same-id")).result()
    changes = [change(store), change(store, "the-same-id"), change(store)]
    futures = [writer.submit(each) for each in changes]
    wait(futures)
    writer.close()
    assert [type(future.exception()) for future in futures] == [type(None), BallotRefused, type(None)]
    assert store.value("SELECT count(*) FROM vote") == 3


def test_the_same_vote_again_is_stored_once(store: Store) -> None:
    writer = Writer(store, None)
    assignment = Assignment("c", "anna", ("a", "b"))
    for _ in range(2):
        writer.submit(change(store, "sent-twice", assignment)).result()
    writer.close()
    assert store.value("SELECT count(*) FROM vote") == 1


def test_after_the_end_nothing_is_taken(store: Store) -> None:
    writer = Writer(store, None)
    writer.close()
    with pytest.raises(NotStored, match="closing"):
        writer.submit(change(store)).result()


def test_without_a_journal_line_no_vote_is_acknowledged(store: Store, tmp_path: Path) -> None:
    """The journal's disk refuses for a while: the answer is refused, sent again, and then stands once in both."""
    fill(store, n=2)
    anna = annotator(store, "anna").id
    journal = Journal(tmp_path / "votes.journal")
    whole, full = VoteJournal(journal, store), threading.Event()

    def refusing(entries: Sequence[Entry]) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        whole(entries)

    with Desk(store, journal=refusing) as desk:
        item, other = desk.next_items(anna, Random(0), 2)
        ballot = vote_for(item, "A", "B")
        full.set()
        for why in (
            "disk is full: your answer is not safe yet",
            "disk is full",
        ):  # what is committed stands, but is not confirmed
            with pytest.raises(NotStored, match=why) as refused:
                desk.cast_all(anna, [ballot])
            assert refused.value.code == "disk_full"
        assert desk.counts()["journal_lag"] == 1
        with pytest.raises(
            NotStored, match="nothing was stored"
        ):  # nothing is committed while the journal lags
            desk.cast_all(anna, [vote_for(other, "A", "B")])
        assert store.value("SELECT count(*) FROM vote") == 1
        full.clear()
        assert desk.cast_all(anna, [ballot])[0].id == ballot.vote_id
        assert desk.progress(anna).done == 1
        assert desk.counts()["journal_lag"] == 0
    journal.close()
    assert store.value("SELECT count(*) FROM vote") == 1
    assert [line["id"] for line in read(tmp_path / "votes.journal") if line["kind"] == "vote"] == [
        ballot.vote_id
    ]


def test_the_journal_holds_all_that_a_vote_is_about(store: Store, tmp_path: Path) -> None:
    fill(store, n=1, k=3)
    anna = annotator(store, "anna").id
    journal = Journal(tmp_path / "votes.journal")
    with Desk(store, journal=VoteJournal(journal, store)) as desk:
        item = take(desk, anna)
        desk.cast_all(anna, [vote_for(item, "C", "A", "B", edit=("A", "better"))])
        desk.undo(anna)
        desk.cast_all(anna, [Ballot("tie", vote_id=new_id(), assignment_id=item.assignment_id)])
    journal.close()
    lines = list(read(tmp_path / "votes.journal"))
    assert [line["kind"] for line in lines] == [
        "annotator", "prompt", "completion", "completion", "completion", "comparison", "assignment", "completion",
        "vote", "vote",
    ]  # fmt: skip
    votes = store.rows("SELECT id, supersedes FROM vote ORDER BY created_at")
    assert [(line["id"], line["supersedes"]) for line in lines[-2:]] == [
        (v["id"], v["supersedes"]) for v in votes
    ]
    assert {line["id"] for line in lines if line["kind"] == "completion"} == {
        row["id"] for row in store.rows("SELECT id FROM completion")
    }


def test_simulated_votes_are_not_journaled(store: Store, tmp_path: Path) -> None:
    fill(store, n=1)
    rule = annotator(store, "rule", "rule").id
    journal = Journal(tmp_path / "votes.journal")
    with Desk(store, journal=VoteJournal(journal, store)) as desk:
        desk.cast_all(rule, [vote_for(take(desk, rule), "A", "B")], "simulate-1")
    journal.close()
    assert list(read(tmp_path / "votes.journal")) == []


def test_a_listener_that_fails_stops_nobody(store: Store) -> None:
    fill(store, n=2)
    anna = annotator(store, "anna").id
    heard: list[str] = []

    def bad(votes: Sequence[Vote]) -> None:
        heard.extend(vote.id for vote in votes)
        raise UserError("broken")

    with Desk(store) as desk:
        desk.on_votes.append(bad)
        sent = [vote_for(take(desk, anna), "A", "B")]
        desk.cast_all(anna, sent)
        sent.append(vote_for(take(desk, anna), "A", "B"))
        desk.cast_all(anna, sent[1:])
    assert heard == [ballot.vote_id for ballot in sent]


def test_a_vote_that_was_committed_although_the_commit_failed_gets_into_the_journal(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk breaks between the log and the answer: refused, sent again, and then stands once in both."""
    fill(store, n=1)
    anna = annotator(store, "anna").id
    journal = Journal(tmp_path / "votes.journal")
    whole = store.transaction

    @contextmanager
    def breaking() -> Iterator[None]:
        with whole():
            yield
        raise duckdb.FatalException("FATAL Error: could not sync the log")

    with Desk(store, journal=VoteJournal(journal, store)) as desk:
        ballot = vote_for(take(desk, anna), "A", "B")
        with monkeypatch.context() as patch:
            patch.setattr(store, "transaction", breaking)
            with pytest.raises(NotStored):
                desk.cast_all(anna, [ballot])
        assert list(read(tmp_path / "votes.journal")) == []
        assert desk.cast_all(anna, [ballot])[0].id == ballot.vote_id
    journal.close()
    assert [row["id"] for row in store.rows("SELECT id FROM vote")] == [ballot.vote_id]
    assert [line["id"] for line in read(tmp_path / "votes.journal") if line["kind"] == "vote"] == [
        ballot.vote_id
    ]


def test_what_is_gathered_while_it_closes_is_refused(store: Store) -> None:
    writer = Writer(store, None)
    change = Change()
    with writer.together():
        writer.submit(change)
        writer.close()
    with pytest.raises(NotStored, match="closing"):
        change.stored.result(5)
    assert not writer.alive


def test_an_end_that_fails_is_told_and_stops_nobody(store: Store) -> None:
    def broken(_: BaseException | None) -> None:
        raise KeyError("a mistake of ours")

    writer = Writer(store, None)
    first, second = Change(then=broken), Change()
    writer.submit(first)
    writer.submit(second)
    with pytest.raises(NotStored, match="send it again"):
        first.stored.result(5)
    assert second.stored.result(5) is None
    assert writer.alive and writer.idle
    writer.close()
