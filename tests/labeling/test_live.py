"""Live questions: the endpoints' file, what servers send, blind pacing, storing, limits; all over real HTTP."""

import asyncio
import json
import random
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from palate.config import UserError
from palate.data.records import Comparison
from palate.data.store import Store
from palate.labeling.ballots import Ballot
from palate.labeling.chat import LONGEST, Draft, Events, new_client, write
from palate.labeling.desk import Desk, annotator
from palate.labeling.endpoints import Endpoint, endpoints_of, read_endpoints
from palate.labeling.live import Live
from palate.labeling.login import Refused
from palate.labeling.pacing import AHEAD, FASTEST, SLOWEST, TICK, Reveal, Speeds
from tests.labeling.endpoint_server import EndpointServer, prose

T = TypeVar("T")
ASK = ({"role": "user", "content": "Describe a harbour in winter."},)


def apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it on a thread of its own: an open browser keeps an event loop running on this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with EndpointServer() as running:
        yield running


# -- the file --------------------------------------------------------------------------------------------


def test_a_file_of_endpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-secret")
    file = tmp_path / "endpoints.yaml"
    file.write_text(
        "- {name: ours, url: 'http://localhost:8000/v1/', model: runs/dpo-3, samples: 2, temperature: 1}\n"
        "- {name: theirs, url: 'https://models.example.org/v1', model: large, key_env: THEIR_KEY, system: Be brief., "
        "max_tokens: 64, top_p: 0.9, timeout_s: 20}\n"
    )
    ours = Endpoint("ours", "http://localhost:8000/v1", "runs/dpo-3", temperature=1.0, samples=2)
    theirs = Endpoint(
        "theirs", "https://models.example.org/v1", "large", "THEIR_KEY", 1.0, 0.9, 64, 1, 20.0, "Be brief."
    )
    assert read_endpoints(file) == (ours, theirs)
    assert (ours.key, theirs.key) == (None, "sk-secret")
    assert "sk-secret" not in repr(theirs)
    assert endpoints_of(None, tmp_path) == (ours, theirs)
    assert endpoints_of(None, tmp_path / "elsewhere") == ()


ENTRY = "- {name: one, url: 'http://localhost:8000/v1', model: m, samples: 2}\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("just text", "must hold a list of endpoints, each with name, url, model"),
        ("[]", "must hold a list"),
        ("- {name: [", "is not valid YAML"),
        ("- plain", "entry 1 must be a section with name, url, model"),
        (ENTRY + "- {name: two, model: m}", "entry 2: url is missing"),
        (ENTRY + "- {name: '', url: 'http://x/v1', model: m}", "entry 2: name must be a text of 1 to 60"),
        (ENTRY + "- {name: 3, url: 'http://x/v1', model: m}", "entry 2: name must be a text"),
        (ENTRY + ENTRY, "entry 2: name 'one' is taken by entry 1"),
        ("- {name: a, url: 'ftp://x/v1', model: m}", "entry 1: url must be like http://localhost:8000/v1, it is 'ftp"),
        ("- {name: a, url: 'http://x:99999/v1', model: m}", "entry 1: url must be like"),
        ("- {name: a, url: 'http://x/v1/chat/completions', model: m}", "without /chat/completions"),
        ("- {name: a, url: 'http://me:sk-1@x/v1', model: m}", "entry 1: url must not hold a password"),
        ("- {name: a, url: 'http://x/v1', model: m, api_key: sk-1}", "entry 1: 'api_key' does not belong in the file"),
        ("- {name: a, url: 'http://x/v1', model: m, key_env: NOT_THERE}", "entry 1: key_env names NOT_THERE, and this"),
        ("- {name: a, url: 'http://x/v1', model: m, temprature: 1}", "entry 1: there is no field 'temprature'"),
        ("- {name: a, url: 'http://x/v1', model: m, temperature: 3}", "temperature must be a number from 0 to 2, it is"),
        ("- {name: a, url: 'http://x/v1', model: m, samples: 1.5}", "samples must be a whole number from 1 to 9"),
        ("- {name: a, url: 'http://x/v1', model: m, max_tokens: true}", "max_tokens must be a whole number"),
        ("- {name: a, url: 'http://x/v1', model: m}", "raise samples or add an endpoint"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_said(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as told:
        read_endpoints(file)
    assert words in str(told.value)
    assert "sk-1" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read"):
        endpoints_of(tmp_path / "none.yaml", tmp_path)


# -- what servers send -------------------------------------------------------------------------------------


def answered(server: EndpointServer, model: str, **settings: Any) -> Draft:
    """The draft of one answer of this model."""
    draft = Draft(Endpoint("it", server.url, model, **settings), seed=7)

    async def run() -> None:
        async with new_client(4) as client:
            await write(client, draft, ASK)

    apart(run())
    return draft


@pytest.mark.parametrize("model", ["well-behaved", "fast", "plain", "strict", "flaky", "untidy"])
def test_whole_answers(server: EndpointServer, model: str) -> None:
    server.texts[model] = text = prose(model, 200)
    draft = answered(server, model, system="Be brief.", max_tokens=64)
    expected = f"{text} \N{GRINNING FACE} \N{REPLACEMENT CHARACTER}." if model == "untidy" else text
    assert (draft.text, draft.finished, draft.finish_reason, draft.failure) == (expected, True, "stop", None)
    body = server.asked[0]
    assert body == {
        "model": model, "messages": [{"role": "system", "content": "Be brief."}, *ASK], "temperature": 1.0, "top_p": 1.0,
        "max_tokens": 64, "stream": True, "seed": 7,
    }  # fmt: skip
    assert server.tries(model) == {"flaky": 3, "strict": 2}.get(model, 1)


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: EndpointServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-secret")
    assert answered(server, "well-behaved", key_env="THEIR_KEY").finished
    assert server.headers[0]["authorization"] == "Bearer sk-secret"
    assert "HTTP 307" in (answered(server, "moved", key_env="THEIR_KEY").failure or "")  # not followed
    assert answered(server, "well-behaved").finished
    assert "authorization" not in server.headers[-1]


@pytest.mark.parametrize(
    ("model", "words", "tries"),
    [
        ("breaks", "RemoteProtocolError", 1),  # after the first token nothing is tried again
        ("no end", "ended before the answer did", 1),
        ("error inside", "out of memory", 1),
        ("garbage", "not JSON", 1),
        ("one line", "a line of over", 1),
        ("empty", "the answer is empty", 1),
        ("forbidden", "HTTP 401", 1),
        ("down", "HTTP 500", 3),
        ("stalls", "not complete after 1 s", 1),
    ],
)
def test_answers_that_fail(server: EndpointServer, model: str, words: str, tries: int) -> None:
    draft = answered(server, model, timeout_s=1.0 if model == "stalls" else 20.0)
    assert words in (draft.failure or "")
    assert (draft.finished, draft.over, server.tries(model)) == (False, True, tries)


def test_nobody_there() -> None:
    draft = Draft(Endpoint("it", "http://127.0.0.1:9/v1", "m", timeout_s=20.0), seed=7)

    async def run() -> None:
        async with new_client(4) as client:
            await write(client, draft, ASK)

    apart(run())
    assert "ConnectError" in (draft.failure or "")


def test_a_huge_answer_is_cut(server: EndpointServer) -> None:
    draft = answered(server, "huge")
    assert (len(draft.text), draft.finish_reason, draft.finished) == (LONGEST, "length", True)


def test_events_cut_anywhere_are_the_same_events() -> None:
    raw = b': hi\r\ndata: {"a": 1}\r\n\r\ndata: {"b":\rdata: "\xc3\xa9"}\r\rdata: [DONE]\n'
    whole = list(Events().feed(raw))
    assert whole == ['{"a": 1}', '{"b":\n"é"}', "[DONE]"]
    for size in range(1, 12):
        events = Events()
        assert [d for i in range(0, len(raw), size) for d in events.feed(raw[i : i + size])] == whole


# -- pacing ------------------------------------------------------------------------------------------------


def arrive(
    texts: dict[str, str], speeds: dict[str, float], known: bool, stall: str = ""
) -> list[dict[str, Any]]:
    """The events of a question whose answers arrive with these characters a second, tick by tick, no clock."""
    memory = Speeds()
    drafts = {letter: Draft(Endpoint(f"endpoint of {letter}", "", ""), 0) for letter in texts}
    if known:
        memory._known = {f"endpoint of {letter}": speed for letter, speed in speeds.items()}
    reveal, events = Reveal(drafts, memory, lambda text: "OpenAI" in text), list[dict[str, Any]]()
    for tick in range(1, 10_000):
        for letter, text in texts.items():
            draft = drafts[letter]
            if letter == stall and 20 < tick < 200:
                continue
            come = text[: round(tick * TICK * speeds[letter])]
            draft.first_at, draft.last_at = 1.0, 1.0 + tick * TICK
            draft.text = come
            draft.finished = come == text
        events += [{**event, "tick": tick} for event in reveal.step()]
        if reveal.done:
            return events
    raise AssertionError("it never ended")


def revealed(events: Sequence[dict[str, Any]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for event in events:
        for letter, piece in event.get("add", {}).items():
            found[letter] = found.get(letter, "") + piece
    return found


def test_all_answers_grow_alike_until_they_end() -> None:
    texts = {"A": prose(1, 400), "B": prose(2, 900), "C": prose(3, 650)}
    events = arrive(texts, {"A": 90.0, "B": 400.0, "C": 5000.0}, known=True)
    assert revealed(events) == texts
    ticks = [event["tick"] for event in events]
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))  # from the first to the last without a pause
    assert len(ticks) == -(-len(texts["B"]) // 6)  # 0.7 of 90 characters a second, in ticks of 0.1 s
    for event, start in zip(events, range(0, 10_000, 6), strict=False):
        assert event["add"] == {
            letter: piece for letter, text in texts.items() if (piece := text[start : start + 6])
        }


@pytest.mark.parametrize("known", [True, False])
def test_who_is_slow_makes_no_difference(known: bool) -> None:
    """The sequence of events is the same whichever of the answers is written by the slow model."""
    rng = random.Random(0)
    for _ in range(40):
        lengths = [rng.randrange(200, 1500) for _ in range(3)]
        texts = {letter: prose(length, length) for letter, length in zip("ABC", lengths, strict=True)}
        slow, fast, faster = rng.uniform(50, 120), rng.uniform(150, 600), rng.uniform(600, 4000)
        outcomes = []
        for order in ((slow, fast, faster), (fast, faster, slow), (faster, slow, fast)):
            events = arrive(texts, dict(zip("ABC", order, strict=True)), known)
            start = events[0]["tick"]
            outcomes.append([(event["tick"] - start, event["add"]) for event in events])
        assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_stall_holds_all_until_all_is_there() -> None:
    texts = {"A": prose(1, 800), "B": prose(2, 900)}
    for stalled in "AB":
        events = arrive(texts, {"A": 100.0, "B": 100.0}, known=True, stall=stalled)
        assert revealed(events) == texts
        sizes = [sorted(map(len, event["add"].values())) for event in events]
        assert sizes[:-1] == [[7, 7]] * (len(sizes) - 1)
        shown = 7 * (len(sizes) - 1)
        assert sizes[-1] == [len(texts["A"]) - shown, len(texts["B"]) - shown]  # the rest of all at once
        assert shown <= 200 + 7 - AHEAD  # the stalled one is never about to end


@pytest.mark.parametrize(
    ("speed", "length"),
    [(SLOWEST, 600), (100.0, 40)],
    ids=["nobody reads so slowly", "too short to know its speed"],
)
def test_otherwise_all_comes_at_once(speed: float, length: int) -> None:
    texts = {"A": prose(1, length), "B": prose(2, 700)}
    events = arrive(texts, {"A": speed, "B": 5000.0}, known=False)
    assert [event["add"] for event in events] == [texts]


def test_the_rhythm_has_an_upper_end() -> None:
    texts = {"A": prose(1, 600), "B": prose(2, 700)}
    events = arrive(texts, {"A": 9000.0, "B": 5000.0}, known=True)
    assert [len(piece) for piece in events[0]["add"].values()] == [FASTEST * TICK] * 2


def test_a_leak_is_withdrawn_before_it_is_seen() -> None:
    texts = {"A": prose(1, 500) + " I was made by OpenAI. " + prose(2, 500), "B": prose(3, 900)}
    for known in (True, False):
        events = arrive(texts, {"A": 100.0, "B": 100.0}, known)
        assert [event["why"] for event in events if event["event"] == "withdrawn"] == ["identity"]
        assert "made by" not in json.dumps(events)
        assert revealed(events)["B"] == texts["B"]


# -- questions ---------------------------------------------------------------------------------------------


class Room:
    """A live screen's server side with a desk and two people."""

    def __init__(self, folder: Path, endpoints: Sequence[Endpoint]) -> None:
        self.store = Store(folder / "palate.duckdb")
        self.anna, self.ben = annotator(self.store, "anna").id, annotator(self.store, "ben").id
        self.desk = Desk(self.store)
        self.live = Live(self.store, self.desk.offer, endpoints)

    def ask(
        self, text: str = "Describe a harbour.", after: str | None = None, answers: int | None = None
    ) -> list[Any]:
        """All events of a question of anna's, each with the moment it came."""

        async def run() -> list[Any]:
            question = self.live.question(self.anna, text, after, answers)
            events = [{**event, "at": time.monotonic()} async for event in self.live.ask(self.anna, question)]
            if self.live._client:
                await self.live._client.aclose()
                self.live._client = None
            return events

        return apart(run())

    def close(self) -> None:
        self.desk.close()
        self.store.close()


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Any]:
    opened: list[Room] = []

    def make(*endpoints: Endpoint) -> Room:
        opened.append(Room(tmp_path, endpoints))
        return opened[-1]

    yield make
    for room in opened:
        room.close()


def test_a_question_becomes_the_askers_next_item(server: EndpointServer, rooms: Any) -> None:
    room = rooms(
        Endpoint("left", server.url, "fast", samples=2, system="Be brief."),
        Endpoint("right", server.url, "slow", temperature=0.5, max_tokens=99),
    )
    events = room.ask()
    shown = revealed(events)
    assert (events[0]["letters"], events[-1]["letters"]) == (["A", "B", "C"], {"A": "A", "B": "B", "C": "C"})
    item = room.desk.next_items(room.anna, random.Random(0), 1)[0]
    assert item.assignment_id == events[-1]["assignment"]
    assert dict(item.answers) == shown
    assert item.messages == ({"role": "user", "content": "Describe a harbour."},)
    assert room.desk.next_items(room.ben, random.Random(0), 1) == []
    (comparison,) = room.store.rows("SELECT * FROM comparison")
    wanted = {"strategy": "live", "purpose": "train", "reserved_for": room.anna, "overlap": 1}
    assert {name: comparison[name] for name in wanted} == wanted
    (prompt,) = room.store.rows("SELECT source, meta FROM prompt")
    assert (prompt["source"], json.loads(prompt["meta"])) == ("live", {"author": room.anna})
    stored = room.store.rows("SELECT * FROM completion")
    assert sorted(row["model"] for row in stored) == ["fast", "fast", "slow"]
    for row in stored:
        right = row["model"] == "slow"
        assert row["text"] == prose((row["model"], row["seed"]), 700)
        assert json.loads(row["sampling"])["temperature"] == (0.5 if right else 1.0)
        assert json.loads(row["meta"]) == (
            {"endpoint": "right"} if right else {"endpoint": "left", "system": "Be brief."}
        )
        assert (row["role"], row["finish_reason"]) == ("sample", "stop")


def rank(room: Room, events: Sequence[dict[str, Any]], **ballot: Any) -> None:
    (item, *_) = room.desk.next_items(room.anna, random.Random(0), 1)
    assert item.assignment_id == events[-1]["assignment"]
    room.desk.cast_all(
        room.anna, [Ballot(vote_id=f"vote-{item.assignment_id}", assignment_id=item.assignment_id, **ballot)]
    )


def test_continuing_from_the_preferred_answer(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("left", server.url, "fast", samples=2))
    first = room.ask("One?")
    with pytest.raises(Refused, match="rank the answers first"):
        room.live.question(room.anna, "Two?", first[-1]["assignment"], None)
    rank(room, first, verdict="ranked", ranking=(("B",), ("A",)), strength=2)
    second = room.ask("Two?", after=first[-1]["assignment"])
    best = revealed(first)["B"]
    talk = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": best},
        {"role": "user", "content": "Two?"},
    ]
    assert server.asked[-1]["messages"] == talk
    rank(room, second, verdict="tie", edit=("A", "My own words."))
    asked = room.live.asked(room.anna)
    assert asked is not None
    assert (asked.messages, asked.preferred) == (tuple(talk), "My own words.")
    third = room.ask("Three?", after=asked.assignment)
    assert server.asked[-1]["messages"][3:] == [
        {"role": "assistant", "content": "My own words."},
        {"role": "user", "content": "Three?"},
    ]
    rank(room, third, verdict="all_bad")
    asked = room.live.asked(room.anna)
    assert asked is not None and asked.preferred is None
    splits = room.store.rows("SELECT DISTINCT split FROM prompt")
    assert len(splits) == 1  # a conversation is held out as a whole, or not at all
    assert room.live.asked(room.ben) is None
    with pytest.raises(Refused, match="not yours"):
        room.live.question(room.ben, "Mine?", first[-1]["assignment"], None)


def test_a_tie_goes_on_from_the_first_that_was_shown(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("left", server.url, "fast", samples=3))
    events = room.ask("One?")
    rank(room, events, verdict="ranked", ranking=(("C", "B"), ("A",)))
    asked = room.live.asked(room.anna)
    assert asked is not None and asked.preferred == revealed(events)["B"]


@pytest.mark.parametrize("bad", ["breaks", "down", "forbidden", "stalls", "garbage", "empty"])
def test_a_failed_answer_is_left_out(server: EndpointServer, rooms: Any, bad: str, caplog: Any) -> None:
    room = rooms(
        Endpoint("good one", server.url, "fast", samples=2),
        Endpoint("secret-name", server.url, bad, timeout_s=1.0 if bad == "stalls" else 20.0),
    )
    events = room.ask()
    (gone,) = [event for event in events if event["event"] == "withdrawn"]
    assert gone["why"] == "broken"
    assert events[-1]["letters"] == dict(zip(sorted({"A", "B", "C"} - {gone["letter"]}), "AB", strict=True))
    assert "secret" not in json.dumps(events)
    assert "secret-name" in caplog.text
    assert len(room.store.rows("SELECT * FROM completion")) == 2


def test_too_few_answers_store_nothing(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("a", server.url, "fast"), Endpoint("b", server.url, "forbidden"))
    assert room.ask()[-1]["code"] == "too_few"
    assert room.store.counts()["prompt"] == 0


def test_the_same_answer_is_asked_for_once_more(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("a", server.url, "same at first", samples=2))
    events = room.ask()
    (again,) = [event for event in events if event["event"] == "again"]
    assert again["letter"] == "B"
    assert events[-1]["event"] == "done"
    assert server.tries("same at first") == 3
    assert server.asked[2]["seed"] not in (server.asked[0]["seed"], server.asked[1]["seed"])
    item = room.desk.next_items(room.anna, random.Random(0), 1)[0]
    assert dict(item.answers)["B"] == events[-2]["add"]["B"]


def test_answers_that_stay_the_same_are_no_question(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("a", server.url, "same", samples=2))
    events = room.ask()
    assert [event.get("why") or event.get("code") for event in events[-2:]] == ["same", "too_few"]
    assert server.tries("same") == 3
    assert room.store.counts()["comparison"] == 0


def test_the_same_answers_as_last_time(server: EndpointServer, rooms: Any) -> None:
    for model in ("one", "two"):
        server.texts[model] = prose(model, 80)
    room = rooms(Endpoint("a", server.url, "one"), Endpoint("b", server.url, "two"))
    first = room.ask()
    second = room.ask()  # not ranked yet: the same item, under the letters of the first time
    assert second[-1]["assignment"] == first[-1]["assignment"]
    seen, again = revealed(first), revealed(second)
    assert {letter: again[now] for now, letter in second[-1]["letters"].items()} == seen
    rank(room, first, verdict="tie")
    assert room.ask()[-1]["code"] == "known"
    assert room.store.counts()["comparison"] == 1


def test_an_answer_that_names_its_maker_is_left_out(server: EndpointServer, rooms: Any) -> None:
    server.texts["names itself"] = prose(1, 200) + " I am names itself, by the way."
    room = rooms(
        Endpoint("a", server.url, "fast", samples=2),
        Endpoint("b", server.url, "leaks"),
        Endpoint("c", server.url, "names itself"),
    )
    events = room.ask()
    assert [event["why"] for event in events if event["event"] == "withdrawn"] == ["identity", "identity"]
    assert "OpenAI" not in json.dumps(events) and "names itself" not in json.dumps(events)
    assert {row["model"] for row in room.store.rows("SELECT model FROM completion")} == {"fast"}


def test_some_of_many_are_asked(server: EndpointServer, rooms: Any) -> None:
    room = rooms(*(Endpoint(name, server.url, name, samples=3) for name in ("fast", "plain", "other")))
    assert room.live.most == 9
    assert room.ask(answers=2)[0]["letters"] == ["A", "B"]
    assert len(server.asked) == 2


def test_the_order_is_drawn_for_each_question(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("a", server.url, "one"), Endpoint("b", server.url, "two"))
    server.texts = {"one": "Number one.", "two": "Number two!"}
    orders = [tuple(revealed(room.ask(f"Question {i}?")).values()) for i in range(12)]
    assert len(set(orders)) == 2  # both orders occur but once in 2048 runs


@pytest.mark.slow
def test_timing_tells_nothing_over_http(server: EndpointServer, rooms: Any) -> None:
    """Fast and slow on a real clock: the pieces are equal in size and moment, and end where their text ends."""
    server.texts = {"fast": prose(1, 500), "slow": prose(2, 500)}
    room = rooms(Endpoint("a", server.url, "fast"), Endpoint("b", server.url, "slow"))
    room.ask("Warm up?")
    smooth = 0
    for i in range(
        4
    ):  # a busy machine may stall a model, and then the rest comes at once: at the same moment too
        events = [event for event in room.ask(f"Question {i}?") if event["event"] == "text"]
        sizes = [[len(piece) for piece in event["add"].values()] for event in events]
        whole = [pair for pair in sizes if len(pair) == 2]
        assert all(first == second for first, second in whole[:-2])
        assert len({pair[0] for pair in whole[:-2]}) <= 1
        smooth += len(whole) > 20
    assert smooth


# -- limits ------------------------------------------------------------------------------------------------


def test_limits_in_words(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("a", server.url, "slow", samples=2))

    async def run() -> None:
        question = room.live.question(room.anna, "One?", None, None)
        first = room.live.ask(room.anna, question)
        await anext(first)
        with pytest.raises(Refused) as told:
            await anext(room.live.ask(room.anna, question))
        assert (told.value.status, told.value.code) == (429, "slow_down")
        assert "still being answered" in told.value.message
        others = [room.live.ask(f"person {i}", question) for i in range(7)]
        for events in others:
            await anext(events)
        with pytest.raises(Refused, match="8 questions are being answered right now"):
            await anext(room.live.ask("one too many", question))
        for events in (first, *others):
            await events.aclose()
        for _ in range(29):
            events = room.live.ask(room.anna, question)
            await anext(events)
            await events.aclose()
        with pytest.raises(Refused, match="you have asked 30 questions in 10 minutes"):
            await anext(room.live.ask(room.anna, question))

    apart(run())
    assert room.live._open == {}
    assert room.store.counts()["prompt"] == 0


def test_going_away_ends_the_requests(server: EndpointServer, rooms: Any) -> None:
    room = rooms(Endpoint("a", server.url, "stalls", samples=2))

    async def run() -> None:
        events = room.live.ask(room.anna, room.live.question(room.anna, "One?", None, None))
        await anext(events)
        await anext(events)  # a second of silence: both endpoints are writing
        await events.aclose()
        for _ in range(100):
            await asyncio.sleep(0.05)
            if server.gone == 2:
                return

    apart(run())
    assert server.gone == 2


@pytest.mark.parametrize(
    ("text", "after", "answers", "status"),
    [
        ("   ", None, None, 422),
        ("x" * 8001, None, None, 422),
        ("half \ud800", None, None, 422),
        ("nul \0", None, None, 422),
        ("One?", None, 1, 422),
        ("One?", None, 3, 422),
        ("One?", "unknown", None, 404),
    ],
)
def test_questions_that_are_none(
    rooms: Any, text: str, after: str | None, answers: int | None, status: int
) -> None:
    room = rooms(Endpoint("a", "http://127.0.0.1:9/v1", "m", samples=2))
    with pytest.raises(Refused) as told:
        room.live.question(room.anna, text, after, answers)
    assert told.value.status == status


def test_without_endpoints(rooms: Any) -> None:
    with pytest.raises(Refused, match="there are no models to ask"):
        rooms().live.question("anna", "One?", None, None)


def test_an_offered_comparison_comes_first_as_shown(rooms: Any) -> None:
    room = rooms()
    from tests.labeling.conftest import fill

    fill(room.store, n=4)
    room.desk.refresh()
    held = room.desk.next_items(room.anna, random.Random(0), 2)
    (comparison,) = fill(room.store, n=1, k=3)
    comparison = Comparison(comparison.prompt_id, comparison.completion_ids, "live", reserved_for=room.anna)
    room.store.add_comparisons([comparison])
    order = tuple(reversed(comparison.completion_ids))
    room.desk.offer(comparison, order)
    room.desk.offer(comparison, order)
    items = room.desk.next_items(room.anna, random.Random(0), 3)
    assert [item.assignment_id for item in items[1:]] == [item.assignment_id for item in held]
    (stored,) = room.store.rows("SELECT display_order FROM assignment WHERE id = ?", [items[0].assignment_id])
    assert tuple(stored["display_order"]) == order
