"""The Review screens over HTTP: every section with no vote and with one, what is asked for, files, decisions, tags."""

import io
import re
import time
from collections.abc import Iterator
from html import unescape
from itertools import pairwise
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from palate.data.records import new_id
from palate.data.store import Store
from palate.labeling import review, review_service
from palate.labeling.review_tables import as_csv
from palate.labeling.statistics.panels import Column, Table
from palate.labeling.statistics.report import MODULES
from palate.project import Project
from tests.labeling.conftest import enter
from tests.labeling.review_app import review_app
from tests.labeling.sample_panels import EVIL
from tests.labeling.voted import ask, vote

HTML = {"accept": "text/html"}
PAGES = ("/review", "/review/data?rows=votes", "/review/adjudicate", *(f"/review/{id}" for id in MODULES))


@pytest.fixture
def opened(project: Project) -> Iterator[Store]:
    with project.store() as store:
        yield store


def client_of(store: Store, project: Project, root: str = "") -> TestClient:
    """A lead's client."""
    client = TestClient(review_app(store, project, root), base_url="http://localhost", follow_redirects=False)
    enter(client, "lena", "lead")
    return client


@pytest.fixture
def client(opened: Store, project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A lead's client; pages wait for their figures, and every vote is seen at once."""
    for name in ("SOON", "LONG"):
        monkeypatch.setattr(review, name, 60.0)
    monkeypatch.setattr("palate.labeling.review_frame.SOON", 60.0)
    monkeypatch.setattr("palate.labeling.review_find.SOON", 60.0)
    monkeypatch.setattr(review_service, "YOUNG", 0.0)
    monkeypatch.setattr(review_service, "REST", 0)
    with client_of(opened, project) as client:
        yield client


def text_of(client: TestClient, path: str, status: int = 200) -> str:
    answer = client.get(path, headers=HTML)
    assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
    assert "text/html" in answer.headers["content-type"]
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy and "script-src 'self'" in policy
    text: str = answer.text
    assert "<script>" not in text and " style=" not in text and " onclick" not in text
    return text


def visible(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


@pytest.fixture
def voted(opened: Store) -> Store:
    """Two items: on the first anna and bert differ, on the second of three answers only anna has voted."""
    pair = ask(opened, "a lighthouse", ("short", "a longer answer"), source="s & co", tags=("sea",))
    three = ask(opened, "a harbour", ("one", "two", "three"), source="t")
    vote(opened, pair, "anna", "0>1", rationale="it is shorter", seconds_active=12.0)
    vote(opened, pair, "bert", "1>0", day=1)
    vote(opened, three, "anna", "2>0=1", day=2)
    return opened


# -- every screen ---------------------------------------------------------------------------------------------


def test_with_no_vote_every_screen_says_what_is_missing(client: TestClient) -> None:
    for path in PAGES:
        text = visible(text_of(client, path))
        assert "NaN" not in text and "None" not in text and "Traceback" not in text and len(text) > 120, path


def test_with_one_vote(client: TestClient, opened: Store) -> None:
    vote(opened, ask(opened, "a lighthouse"), "anna", "0>1")
    for path in PAGES:
        text = visible(text_of(client, path))
        assert "NaN" not in text and "None" not in text, path


def test_the_overview_links_every_question_to_its_section(client: TestClient, voted: Store) -> None:
    text = text_of(client, "/review")
    links = re.findall(r'href="(/review/(\w+)#([\w-]+))"', text)
    assert {section for _, section, _ in links} == set(MODULES)
    for section in MODULES:
        page = text_of(client, f"/review/{section}")
        assert not [anchor for _, name, anchor in links if name == section and f'id="{anchor}"' not in page]


def test_ids_are_unique_and_headings_in_order(client: TestClient, voted: Store) -> None:
    for path in PAGES:
        text = text_of(client, path)
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(ids) == len(set(ids)), path
        levels = [int(level) for level in re.findall(r"<h(\d)", text)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b <= a + 1 for a, b in pairwise(levels)), (path, levels)


def test_names_are_shown_as_written(client: TestClient, opened: Store) -> None:
    item = ask(
        opened, EVIL, ("**bold** <b>a</b>", EVIL), models=(EVIL, f"{EVIL}2"), source=EVIL, tags=(EVIL,)
    )
    vote(opened, item, EVIL, "0>1", rationale=EVIL)
    for path in (*PAGES, f"/review/item?id={item.id}", f"/review/adjudicate?item={item.id}"):
        text = text_of(client, path)
        assert "<img" not in text and "<b>a</b>" not in text, path
        if "item" not in path:  # texts are shown as they are; what is chosen is sent back as it is
            assert "\x1b" not in re.sub(r' value="[^"]*"', "", text), path
        assert "{{7*7}}" in text or "49" not in visible(text), path
    assert "&lt;img src=x onerror=alert(1)&gt;" in text_of(client, "/review/annotators")


def test_where_the_server_stands_behind_a_proxy(opened: Store, project: Project) -> None:
    vote(opened, ask(opened, "a lighthouse"), "anna", "0>1")
    with client_of(opened, project, "/palate") as client:
        for path in PAGES:
            text = text_of(client, f"/palate{path}")
            links = re.findall(r'(?:href|src|action|data-late)="([^"#]+)', text)
            assert links and all(link.startswith(("/palate/", "?order=")) for link in links), path
        assert client.get("/palate/statistics").headers["location"] == "/palate/review"


# -- which votes ----------------------------------------------------------------------------------------------


def test_the_bar_narrows_what_counts(client: TestClient, voted: Store) -> None:
    for query, votes in (
        ("", 3),
        ("?source=t", 1),
        ("?tag=sea", 2),
        ("?since=2026-03-03", 2),
        ("?until=2026-03-02", 1),
    ):
        found = client.get(f"/api/v1/statistics{query}{'&' if query else '?'}section=progress").json()
        assert f"{votes} vote" in str(found["sections"][0]["panels"]), query
    text = text_of(client, "/review/models?source=s+%26+co&since=2026-03-02")
    assert '<option value="s &amp; co" selected>' in text and 'value="2026-03-02"' in text
    assert 'href="/review/progress?source=s+%26+co&amp;since=2026-03-02"' in text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("kind=robot", "kind is one of human, rule, model, got &#39;robot&#39;"),
        ("since=yesterday", "since is a day like 2026-08-31, got &#39;yesterday&#39;"),
        (
            "source=nowhere",
            "no vote is on a prompt with the source &#39;nowhere&#39;; there are: s &amp; co, t",
        ),
        ("tag=x", "no vote is on a prompt with the tag &#39;x&#39;; there are: sea"),
    ],
)
@pytest.mark.parametrize("path", ["/review", "/review/models"])
def test_a_wrong_value_is_told_in_one_line(
    client: TestClient, voted: Store, path: str, query: str, said: str
) -> None:
    text = text_of(client, f"{path}?{query}", 400)
    assert re.findall(r'role="alert">([^<]*)<', text) == [said]
    assert client.get(f"/review/models?{query}&fragment=1").status_code == 400


def test_what_there_is_not(client: TestClient) -> None:
    for path in ("/review/nothing", "/review/models/late/nothing", "/review/item?id=nothing", "/review/part/nothing",
                 "/review/models/nothing/0.csv", "/review/adjudicate?item=nothing"):  # fmt: skip
        assert client.get(path, headers=HTML).status_code == 404, path
    assert client.get("/statistics").headers["location"] == "/review"
    assert client.get("/statistics/").headers["location"] == "/review"


# -- what takes longer ----------------------------------------------------------------------------------------


def test_what_is_not_ready_is_asked_for_again(
    opened: Store, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SOON", "LONG"):
        monkeypatch.setattr(review, name, 0.0)
    with client_of(opened, project) as client:
        page = text_of(client, "/review/models")
        assert 'data-late="/review/models"' in page and "Look again" in page
        assert re.findall(r'data-late="/review/part/\w+"', text_of(client, "/review"))
        for path in ("/review/progress?fragment=1", "/review/part/progress?fragment=1"):
            for _ in range(600):
                answer = client.get(path)
                if answer.status_code != 202:
                    break
                assert answer.text == "Computing"
                time.sleep(0.05)
            assert answer.status_code == 200 and "<h1" not in answer.text and "How far are we?" in answer.text
            monkeypatch.setattr(review, "LONG", 0.0)


# -- tables ---------------------------------------------------------------------------------------------------


def test_a_table_as_a_file(client: TestClient, voted: Store) -> None:
    page = text_of(client, "/review/progress?source=t")
    link = re.findall(r'href="(/review/progress/[\w-]+/\d+\.csv\?source=t)"', page)[0]
    answer = client.get(link)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(
        r'attachment; filename="progress-[\w-]+-\d\.csv"', answer.headers["content-disposition"]
    )
    assert len(answer.text.splitlines()) >= 2


def test_csv_has_intervals_in_columns_and_no_formulas() -> None:
    table = Table(
        (
            Column("name", "annotator"),
            Column("won", "won, all", "share", "low", "high"),
            Column("n", "votes", "count"),
        ),
        [
            {"name": "=SUM(A1)", "won": 0.123456, "low": 0.1, "high": None, "n": 3},
            {"name": 'a "b", c', "won": None, "low": None, "high": None, "n": -1},
        ],
    )
    assert as_csv(table) == (
        'annotator,"won, all","won, all, 95 % from","won, all, 95 % to",votes\r\n'
        "'=SUM(A1),0.123456,0.1,,3\r\n"
        '"a ""b"", c",,,,-1\r\n'
    )


def test_a_table_is_sorted_without_scripts(client: TestClient, opened: Store) -> None:
    for i, name in enumerate(("anna", "bert", "carl")):
        for j in range(i + 1):
            vote(opened, ask(opened, f"idea {i} {j}"), name, "0>1")
    page = text_of(client, "/review/progress")
    link = next(
        one
        for one in re.findall(r'href="\?(order=[^"#]+\.votes)#', page)
        if "who" in one or "people" in one or "annot" in one
    )
    names = ["anna", "bert", "carl"]

    def order(query: str) -> list[str]:
        panel = text_of(client, f"/review/progress?{query}").split(
            f'id="progress-{link.split("=")[1].split(".")[0]}"'
        )[1]
        body = panel.split("<tbody>")[1 + int(link.split(".")[1])].split("</tbody>")[0]
        return [name for name in re.findall(r">(\w+)<", body) if name in names]

    assert order(link) == ["carl", "bert", "anna"]
    again = text_of(client, f"/review/progress?{link}")
    assert 'aria-sort="descending"' in again and link.replace("order=", "order=-") in again
    assert order(link.replace("order=", "order=-")) == names


# -- data -----------------------------------------------------------------------------------------------------


def test_search_lists_and_exports_what_is_found(client: TestClient, voted: Store) -> None:
    text = text_of(client, "/review/data?q=lighthouse")
    assert "<b>1</b> items" in text and "a lighthouse" in text and "a harbour" not in text
    assert 'href="/api/v1/review/export.csv?q=lighthouse"' in text
    lines = client.get("/api/v1/review/export.csv?q=lighthouse").text.splitlines()
    assert lines[0] == "# query: ?q=lighthouse" and len(lines) == 3 and lines[2].startswith("a lighthouse,")
    table = pq.read_table(
        io.BytesIO(client.get("/api/v1/review/export.parquet?rows=votes&annotator=anna").content)
    )
    assert table.num_rows == 2 and set(table["annotator"].to_pylist()) == {"anna"}
    assert table.schema.metadata[b"query"] == b"?annotator=anna&rows=votes"
    assert "Nothing fulfils all of these conditions" in text_of(client, "/review/data?q=submarine")
    assert "disagreement is a number" in text_of(client, "/review/data?disagreement=x", 400)


def test_pages_of_a_long_list(client: TestClient, opened: Store) -> None:
    for i in range(60):
        ask(opened, f"idea {i}")
    first = text_of(client, "/review/data?purpose=train")
    assert "page 1 of 2" in first and 'rel="next" href="/review/data?purpose=train&amp;page=2"' in first
    second = text_of(client, "/review/data?purpose=train&page=2")
    assert second.count('href="/review/item?id=') == 10 and 'rel="prev"' in second


def test_an_item_shows_its_votes_and_who_wrote_what(client: TestClient, voted: Store) -> None:
    id = voted.value("SELECT comparison_id FROM current_vote WHERE rationale IS NOT NULL")
    text = visible(text_of(client, f"/review/item?id={id}"))
    for word in ("a lighthouse", "anna", "bert", "it is shorter", "12 s", "m0", "m1", "Adjudicate this item"):
        assert word in text
    assert "m0" not in visible(text_of(client, f"/review/adjudicate?item={id}"))  # blind until it is decided


def test_tags_are_given_and_taken(client: TestClient, voted: Store) -> None:
    sent = client.post("/review/data/tags?q=harbour", data={"name": " to  read ", "do": "add"})
    assert sent.headers["location"] == "/review/data?q=harbour&tagged=1"
    assert "The tag was added to one prompt." in text_of(client, sent.headers["location"])
    assert "<b>1</b> items" in text_of(client, "/review/data?tag=to+read")
    sent = client.post("/review/data/tags", data={"name": "to read", "do": "remove"})
    assert "The tag was taken from one prompt." in text_of(client, sent.headers["location"])
    bad = client.post("/review/data/tags", data={"name": "x" * 99, "do": "add"}, headers=HTML)
    assert bad.status_code == 400 and "a tag takes 1 to 60 visible characters" in bad.text


# -- adjudication ---------------------------------------------------------------------------------------------


def decision(page: str, **fields: str) -> dict[str, str]:
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    assert set(hidden) == {"item", "vote_id", "replaces"}
    return hidden | fields


def test_a_pair_that_people_differ_on_is_decided(client: TestClient, voted: Store) -> None:
    page = text_of(client, "/review/adjudicate?source=s+%26+co")
    assert 'action="/review/adjudicate?source=s+%26+co&amp;disagreement=0.' in page
    page = text_of(client, "/review/adjudicate")
    assert "a lighthouse" in page and "it is shorter" in page
    sent = client.post("/review/adjudicate", data=decision(page, choice="2", rationale="clear"))
    assert sent.status_code == 303, sent.text
    row = voted.rows("SELECT * FROM current_vote WHERE adjudicated")[0]
    assert (row["annotator_name"], row["strength"], row["rationale"]) == ("lena", 2, "clear")
    assert row["ranking"][0] == [row["display_order"][0]]
    after = text_of(client, sent.headers["location"])
    assert "Nothing is left to decide" in after and f"/review/item?id={row['comparison_id']}" in after
    text = visible(text_of(client, f"/review/item?id={row['comparison_id']}"))
    assert "Decided by lena (you): A > B (better)" in text
    # once more, and somebody else meanwhile
    page = text_of(client, f"/review/adjudicate?item={row['comparison_id']}")
    first, second = decision(page, choice="x"), decision(page, choice="4") | {"vote_id": new_id()}
    assert client.post(f"/review/adjudicate?item={row['comparison_id']}", data=first).status_code == 303
    late = client.post(f"/review/adjudicate?item={row['comparison_id']}", data=second, headers=HTML)
    assert late.status_code == 409 and "somebody decided this item meanwhile" in late.text
    assert voted.value("SELECT count(*) FROM current_vote WHERE adjudicated") == 1


@pytest.mark.parametrize(
    ("ranking", "verdict", "sizes"),
    [("c > a = b", "ranked", [1, 2]), ("B>A>C", "ranked", [1, 1, 1]), ("tie", "tie", [3]), ("A = B = C", "tie", [3]),
     ("all bad", "all_bad", [])],
)  # fmt: skip
def test_a_ranking_is_typed(
    client: TestClient, voted: Store, ranking: str, verdict: str, sizes: list[int]
) -> None:
    id = voted.value("SELECT id FROM comparison WHERE len(completion_ids) = 3")
    page = text_of(client, f"/review/adjudicate?item={id}")
    sent = client.post(f"/review/adjudicate?item={id}", data=decision(page, ranking=ranking))
    assert (sent.status_code, sent.headers.get("location")) == (303, f"/review/item?id={id}")
    row = voted.rows("SELECT * FROM current_vote WHERE adjudicated")[0]
    assert (row["verdict"], [len(tier) for tier in row["ranking"]]) == (verdict, sizes)


@pytest.mark.parametrize(
    "fields", [{"ranking": "A >"}, {"ranking": "Z > A"}, {}, {"ranking": "A > A > B > C"}]
)
def test_a_decision_that_makes_no_sense_is_refused(
    client: TestClient, voted: Store, fields: dict[str, str]
) -> None:
    id = voted.value("SELECT id FROM comparison WHERE len(completion_ids) = 3")
    page = text_of(client, f"/review/adjudicate?item={id}")
    sent = client.post(
        f"/review/adjudicate?item={id}", data=decision(page, **fields, rationale="so"), headers=HTML
    )
    assert sent.status_code == 400 and 'role="alert"' in sent.text and 'value="so"' in sent.text
    assert voted.value("SELECT count(*) FROM vote WHERE adjudicated") == 0


def test_what_is_left_for_later_comes_after_the_rest(client: TestClient, opened: Store) -> None:
    for name in ("one", "two"):
        item = ask(opened, f"idea {name}")
        vote(opened, item, "anna", "0>1")
        vote(opened, item, "bert", "1>0")
    first = text_of(client, "/review/adjudicate")
    later = re.findall(r'href="([^"]+)" id="later"', first)[0].replace("&amp;", "&")
    second = text_of(client, later)
    asked = [re.findall(r"idea (\w+)", page)[0] for page in (first, second)]
    assert sorted(asked) == ["one", "two"]
    last = re.findall(r'href="([^"]+)" id="later"', second)[0].replace("&amp;", "&")
    assert "That was the last one; 2 are left for later." in text_of(client, last)


# -- for scripts ----------------------------------------------------------------------------------------------


def test_statistics_as_json(client: TestClient, voted: Store) -> None:
    found: dict[str, Any] = client.get("/api/v1/statistics").json()
    assert found["scope"] == {"kind": "human"}
    assert [section["id"] for section in found["sections"]] == list(MODULES)
    assert not [panel for section in found["sections"] for panel in section["panels"] if panel["late"]]
    one = client.get("/api/v1/statistics?section=models&kind=rule").json()
    assert (one["scope"], [section["id"] for section in one["sections"]]) == ({"kind": "rule"}, ["models"])
    for query, status in (("source=nowhere", 400), ("since=x", 422), ("section=x", 422), ("kind=x", 422)):
        assert client.get(f"/api/v1/statistics?{query}").status_code == status
