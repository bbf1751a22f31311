"""What a query of Data asks of items and of votes, as masks over the catalogue and as SQL over the facts."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling import review_texts
from palate.labeling.review_catalogue import PURPOSES, Catalogue, among
from palate.labeling.review_query import Query
from palate.labeling.statistics.disagreement import Disagreement, disagreement, of_pairs
from palate.labeling.statistics.scope import Scope

VERDICTS = ("ranked", "tie", "all_bad", "skip")
PAGE = 50  # rows
FEW = 0.15  # share of the items up to which only their texts and votes are looked at, not all

Bools = NDArray[np.bool_]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Codes = NDArray[np.uint64]
Floats = NDArray[np.float64]


def all_of(scope: Scope) -> Scope:
    """The votes of a scope on all prompts: which prompts is a condition on items here."""
    return Scope(scope.kind, since=scope.since, until=scope.until)


@dataclass(frozen=True)
class Asked:
    """A query, and what it is asked of."""

    facts: Facts
    store: Store
    catalogue: Catalogue
    query: Query

    # -- what is known of items, by their place in the catalogue ---------------------------------------------

    def places(self) -> Longs:
        """(items,) places in the catalogue by the facts' codes; -1 where the catalogue lacks one."""

        def read() -> Longs:
            sql = "SELECT hash(id) AS id FROM item ORDER BY item.code"
            return self.catalogue.places(self.facts.columns(sql)["id"])

        return self.facts.remember(("places", self.catalogue.version), read)

    def items(self, keep: Bools) -> Ints:
        """The facts' codes of these items, those that have a vote."""
        places = self.places()
        return np.flatnonzero((places >= 0) & keep[places]).astype(np.int32)

    def adjudicated(self) -> Bools:
        """(C,) whether a decision stands."""

        def read() -> Bools:
            found = self.facts.columns("SELECT DISTINCT item FROM ballot WHERE adjudicated")["item"]
            place = self.places()[found]
            made = np.zeros(self.catalogue.n, bool)
            made[place[place >= 0]] = True
            return made

        return self.facts.remember(("adjudicated", self.catalogue.version), read)

    def splits(self) -> tuple[Floats, Ints]:
        """(C,) how split items are, NaN where nobody has judged; (C, 3) votes on the pair that splits most."""
        scope = all_of(self.query.scope)

        def read() -> tuple[Floats, Ints]:
            return self._spread(disagreement(self.facts, scope), np.arange(self.catalogue.n, dtype=np.int32))

        return self.facts.remember(("splits", scope, self.catalogue.version), read)

    def splits_of(self, place: Ints) -> tuple[Floats, Ints]:
        """(N,) and (N, 3) of `splits` for some items: a page is there before the whole is computed."""
        if self.query.sort == "disagreement" or self.query.disagreement is not None or len(place) > PAGE:
            expected, halves = self.splits()
            return expected[place], halves[place]
        keep = np.zeros(self.catalogue.n, bool)
        keep[place] = True
        where, params = all_of(self.query.scope).where("j")
        found = self.facts.columns(
            "SELECT unit, item, count(*) FILTER (grade > 0)::INTEGER AS a, count(*) FILTER (grade = 0)::INTEGER AS t, "
            f"count(*) FILTER (grade < 0)::INTEGER AS b FROM judgement j WHERE {where} AND NOT again "
            "AND NOT adjudicated AND item IN (SELECT unnest(?::INTEGER[])) GROUP BY unit, item",
            [*params, self.items(keep).tolist()],
        )
        return self._spread(of_pairs(*(found[name] for name in ("unit", "item", "a", "t", "b"))), place)

    def _spread(self, found: Disagreement, place: Ints) -> tuple[Floats, Ints]:
        """Figures by item as (N,) and (N, 3) by place; NaN for an item without."""
        at = np.full(self.catalogue.n, -1)
        mine = self.places()[found.item]
        at[mine[mine >= 0]] = np.flatnonzero(mine >= 0)
        row = at[place]
        halves = np.stack([found.a_wins, found.ties, found.b_wins], axis=1).reshape(-1, 3)
        if not len(halves):
            return np.full(len(place), np.nan), np.zeros((len(place), 3), np.int32)
        return np.where(row >= 0, found.expected[row], np.nan), np.where(row[:, None] >= 0, halves[row], 0)

    @cached_property
    def voted(self) -> tuple[Ints, Longs]:
        """(C,) votes that fulfil the conditions; (C,) microseconds since 1970 of the latest of them, 0 without any."""

        def read() -> tuple[Ints, Longs]:
            where, params = self.votes
            found = self.facts.columns(
                "SELECT item, count(*)::INTEGER AS votes, epoch_us(max(moment)) AS latest FROM ballot b "
                f"WHERE {where} GROUP BY item",
                params,
            )
            place = self.places()[found["item"]]
            there = place >= 0
            votes, latest = np.zeros(self.catalogue.n, np.int32), np.zeros(self.catalogue.n, np.int64)
            votes[place[there]], latest[place[there]] = found["votes"][there], found["latest"][there]
            return votes, latest

        if self.query.about_votes or (self.query.rows == "votes" and self.query.adjudicated is False):
            return read()
        return self.facts.remember(("voted", self.query.scope.kind, self.catalogue.version), read)

    # -- conditions ------------------------------------------------------------------------------------------

    def keep(self) -> Bools:
        """(C,) which items fulfil all conditions but the words."""
        query, catalogue = self.query, self.catalogue
        keep = np.ones(catalogue.n, bool)
        if query.scope.source is not None:
            keep &= catalogue.source == _index(catalogue.sources, query.scope.source)
        if query.scope.tag is not None:
            sql = "SELECT hash(id) AS code FROM prompt WHERE list_contains(tags, ?)"
            keep &= among(catalogue.prompt, self.store.table(sql, [query.scope.tag])["code"].to_numpy())
        if query.purpose is not None:
            keep &= catalogue.purpose == PURPOSES.index(query.purpose)
        if query.model is not None:
            by_it = np.zeros(catalogue.n, bool)
            by_it[catalogue.owner[catalogue.model == _index(catalogue.models, query.model)]] = True
            keep &= by_it
        for name, codes in ((query.item, catalogue.code), (query.prompt, catalogue.prompt)):
            if name is not None:
                keep &= codes == np.uint64(self.store.value("SELECT hash(?::VARCHAR)", [name]))
        if query.disagreement is not None:
            keep &= np.nan_to_num(self.splits()[0], nan=-1.0) >= query.disagreement
        if query.about_votes or query.answered is not None or query.rows == "votes":
            keep &= (self.voted[0] == 0) if query.answered is False else (self.voted[0] > 0)
        if query.adjudicated is False and query.rows == "items":
            keep &= ~self.adjudicated()
        return keep

    @cached_property
    def votes(self) -> tuple[str, list[Any]]:
        """A condition on the ballots `b`, with its parameters."""
        query = self.query
        where, params = all_of(query.scope).where("b")
        parts = [where]
        if query.annotator is not None:
            parts.append("b.annotator IN (SELECT code FROM annotator WHERE name = ? OR id = ?)")
            params += [query.annotator, query.annotator]
        if query.verdict is not None:
            parts.append(f"b.verdict = {VERDICTS.index(query.verdict)}")
        if query.rationale is not None:
            parts.append("b.rationale" if query.rationale else "NOT b.rationale")
        if query.adjudicated is not None and (query.adjudicated or query.rows == "votes"):
            parts.append("b.adjudicated" if query.adjudicated else "NOT b.adjudicated")
        if query.flag is not None:
            parts.append("b.flagged")
        if query.flag not in (None, "any"):  # a flag is "unsafe", or "unsafe:<completion>"
            parts.append("b.vote IN (SELECT unnest(?::UBIGINT[]))")
            sql = (
                "SELECT hash(id) AS code FROM vote WHERE len(flags) > 0 "
                "AND list_contains(list_transform(flags, lambda x: split_part(x, ':', 1)), ?)"
            )
            params.append(self.store.table(sql, [query.flag])["code"].to_pylist())
        return " AND ".join(parts), params


def _index(names: tuple[str, ...], name: str) -> int:
    return names.index(name) if name in names else -1


# -- words ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """Where the words of a query stand."""

    items: Bools  # (C,) all of them somewhere in the item, and the item fulfils the other conditions
    in_texts: tuple[Bools, ...]  # by word: (C,) whether prompt or answers hold it
    in_votes: tuple[Codes, ...]  # by word: the votes whose rationale holds it
    rank: NDArray[
        np.int8
    ]  # (C,) 3 where all words are in the prompt, 2 where they are in prompt and answers, else 1

    def votes(self, vote: Codes, place: Ints) -> Bools:
        """(N,) whether the texts of these votes' items and their own rationales hold all words."""
        found = np.ones(len(vote), bool)
        for texts, votes in zip(self.in_texts, self.in_votes, strict=True):
            found &= texts[place] | among(vote, votes)
        return found


def words(asked: Asked, keep: Bools) -> Words:
    """The items, of those that are kept, that hold all words.

    The longest word is looked for first: it is the rarest. Where few items are left, only their texts are read for
    the others, all of them at once.
    """
    longest_first = sorted(asked.query.words, key=len, reverse=True)
    in_prompt, in_both = np.ones(asked.catalogue.n, bool), np.ones(asked.catalogue.n, bool)
    in_texts, in_votes = list[Bools](), list[Codes]()
    for some in (longest_first[:1], longest_first[1:]):
        for prompt, text, votes, rationale in _where(asked, some, keep) if some else ():
            in_texts.append(text)
            in_votes.append(votes)
            in_prompt &= prompt
            in_both &= text
            keep = keep & (text | rationale)
    rank = np.where(in_prompt, 3, np.where(in_both, 2, 1)).astype(np.int8)
    return Words(keep, tuple(in_texts), tuple(in_votes), rank)


def _where(asked: Asked, some: list[str], keep: Bools) -> list[tuple[Bools, Bools, Codes, Bools]]:
    """By word: (C,) in the prompt, (C,) in prompt or answers, votes with it in the rationale, (C,) items of these."""
    facts, store, catalogue = asked.facts, asked.store, asked.catalogue
    few = keep.sum() <= FEW * catalogue.n
    prompts = review_texts.in_prompts(store, some, np.unique(catalogue.prompt[keep]) if few else None)
    answers = review_texts.in_answers(store, some, catalogue.answer[keep[catalogue.owner]] if few else None)
    rationales = review_texts.in_rationales(store, some)
    kind = Scope(asked.query.scope.kind)
    sql = f"SELECT vote, item FROM ballot b WHERE {kind.where('b')[0]} AND rationale"
    given = facts.remember(("rationales", kind), lambda: facts.columns(sql))
    found = []
    for i in range(len(some)):
        prompt = among(catalogue.prompt, prompts.of(i))
        text, rationale = prompt.copy(), np.zeros(catalogue.n, bool)
        text[catalogue.owners(answers.of(i))] = True
        votes = rationales.of(i)
        place = asked.places()[given["item"][among(given["vote"], votes)]]
        rationale[place[place >= 0]] = True
        found.append((prompt, text, votes, rationale))
    return found
