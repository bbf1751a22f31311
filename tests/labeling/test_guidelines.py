"""Guidelines: versions that never change, what a change was, safe Markdown, who may write, the lead's page."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig, UserError
from palate.data.store import Store
from palate.labeling import guidelines
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import enter, fill

# what must not come out as a tag, an attribute or a link that runs something
PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\tscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](vbscript:msgbox)",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    "![x](http://elsewhere.example/track.png)",
    '[x](https://a.example "\\" onmouseover=alert(1) \\"")',
    '[x](https://a.example/"onclick="alert(1))',
    '```html"><script>alert(1)</script>\n```',
    "| <b onclick=alert(1)> |\n|---|\n| <iframe src=//x> |",
    "# <a href=javascript:alert(1)>x</a>",
    "`<script>`",
    "<!-- --><style>*{display:none}</style>",
    "[x]: javascript:alert(1)\n\n[x]",
)
TAGS = {"p", "a", "h3", "h4", "h5", "h6", "ul", "ol", "li", "em", "strong", "code", "pre", "blockquote", "hr", "br",
        "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_in_markdown_runs(payload: str) -> None:
    html = guidelines.as_html(f"before\n\n{payload}\n\nafter")
    for tag, attributes in re.findall(r"<([a-zA-Z0-9]+)((?:\s+[^<>]*)?)>", html):
        assert tag in TAGS, html
        for name, value in re.findall(r'([a-zA-Z-]+)="([^"]*)"', attributes):
            assert name in ("href", "title", "target", "rel", "class", "style"), html
            if name == "href":
                assert not re.match(r"(?i)\s*(javascript|vbscript|data|file):", value), html
            if name == "style":
                assert re.fullmatch(r"text-align:(left|right|center)", value), html
    assert "<p>before</p>" in html and "<p>after</p>" in html


def test_headings_stand_below_those_of_the_page_and_links_open_elsewhere() -> None:
    assert guidelines.as_html("# A\n\n## B [c](https://d.example)") == (
        '<h3>A</h3>\n<h4>B <a href="https://d.example" target="_blank" rel="noopener noreferrer">c</a></h4>\n'
    )


def test_versions(store: Store) -> None:
    assert guidelines.current(store) == guidelines.Guidelines()
    first = guidelines.add(store, "one\n", "lena")
    assert guidelines.add(store, " one", "anna") == first  # nothing new
    second = guidelines.add(store, "two", None)
    assert (first.version, second.version, second.text) == (1, 2, "two")
    assert guidelines.current(store) == second
    assert guidelines.find(store, 1) == first and guidelines.find(store, 3) is None
    assert [(v.version, v.text, v.created_by) for v in guidelines.history(store)] == [
        (2, "two", None),
        (1, "one", "lena"),
    ]


@pytest.mark.parametrize("text", ["", "  \n", "x" * (guidelines.LONGEST + 1)])
def test_a_text_that_is_no_text(store: Store, text: str) -> None:
    with pytest.raises(UserError, match="guidelines take 1 to 100,000 characters"):
        guidelines.add(store, text, None)


def test_what_changed() -> None:
    assert guidelines.changes("a\n\nb\nc", "a\nb2\n\n\nc\nd") == [
        {"sign": "-", "text": "b"},
        {"sign": "+", "text": "b2"},
        {"sign": "+", "text": "d"},
    ]
    assert guidelines.changes("a\n\nb", "a\nb\n") == []
    old, new = (
        "\n".join(f"{word} line {i} of the guidelines" for i in range(400)) for word in ("old", "new")
    )
    found = guidelines.changes(old, new)  # rewritten from the first line to the last: ndiff takes a minute
    assert [line["sign"] for line in found] == ["-"] * 400 + ["+"] * 400


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    with Store(project.database) as store:
        fill(store)
    with Store(project.database) as store:
        app = make_app(store, project, LabelConfig(project=project.folder))
        with TestClient(app, base_url="http://localhost") as opened:
            yield opened


def test_over_http(client: TestClient) -> None:
    enter(client, "anna")
    empty = client.get("/api/v1/guidelines").json()
    assert empty == {"version": None, "text": "", "created_at": None, "html": "", "changes": []}
    assert client.put("/api/v1/guidelines", json={"text": "mine"}).status_code == 403
    assert client.get("/api/v1/guidelines/history").status_code == 403
    enter(client, "lena", "lead")
    assert client.put("/api/v1/guidelines", json={"text": "old\nsame"}).json()["version"] == 1
    assert client.put("/api/v1/guidelines", json={"text": "new <b>\nsame"}).json()["version"] == 2
    assert client.put("/api/v1/guidelines", json={"text": ""}).status_code == 400
    assert client.put("/api/v1/guidelines", json={"text": "x", "version": 9}).status_code == 422
    assert [(v["version"], v["by"]) for v in client.get("/api/v1/guidelines/history").json()["versions"]] == [
        (2, "lena"),
        (1, "lena"),
    ]
    enter(client, "anna")
    found = client.get("/api/v1/guidelines?since=1").json()
    assert (found["version"], found["html"]) == (2, "<p>new &lt;b&gt;\nsame</p>\n")
    assert found["changes"] == [{"sign": "-", "text": "old"}, {"sign": "+", "text": "new <b>"}]
    assert client.get("/api/v1/guidelines?since=2").json()["changes"] == []
    assert client.get("/api/v1/guidelines?since=77").json()["changes"] == []


def test_the_page_of_leads(client: TestClient) -> None:
    enter(client, "anna")
    for sent in (client.get("/guidelines"), client.post("/guidelines", data={"do": "save", "text": "mine"})):
        assert sent.status_code == 403
    enter(client, "lena", "lead")
    page = client.post("/guidelines", data={"do": "preview", "text": "# Hi\r\n<script>"}).text
    assert "<h3>Hi</h3>" in page and "&lt;script&gt;" in page and "<script" not in page
    assert client.get("/api/v1/guidelines").json()["version"] is None  # looked at, not saved
    for text in ("first", "second </textarea><script>alert(1)</script>"):
        saved = client.post("/guidelines", data={"do": "save", "text": text})
        assert saved.status_code == 200 and "is in force" in saved.text  # after the redirect
        assert "<script" not in saved.text
    client.post("/guidelines", data={"do": "restore", "version": "1"})
    found = client.get("/api/v1/guidelines").json()
    assert (found["version"], found["text"]) == (3, "first")
    assert client.post("/guidelines", data={"do": "restore", "version": "9"}).status_code == 404
    assert client.post("/guidelines", data={"do": "restore", "version": "x"}).status_code == 404
    assert client.post("/guidelines", data={"do": "save", "text": " "}).status_code == 400


def test_the_page_speaks_the_browsers_language(client: TestClient) -> None:
    enter(client, "lena", "lead")
    assert "Save as a new version" in client.get("/guidelines").text
    client.cookies.set("palate-language", "de")
    page = client.get("/guidelines").text
    assert "Als neue Fassung speichern" in page and '<html lang="de">' in page


def test_a_file_becomes_a_version_when_it_changed(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "guidelines.md"
    for text, version in (("one", 1), ("one\n", 1), ("two", 2)):
        file.write_text(text, encoding="utf-8")
        with Store(project.database) as store:
            make_app(store, project, LabelConfig(project=project.folder, guidelines=file))
            assert guidelines.current(store).version == version
    with Store(project.database) as store:
        guidelines.add(store, "what a lead wrote", "lena")
        make_app(
            store, project, LabelConfig(project=project.folder, guidelines=file)
        )  # a restart changes nothing
        assert guidelines.current(store).text == "what a lead wrote"
