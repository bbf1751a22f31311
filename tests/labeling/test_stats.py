"""`palate stats`: text, JSON and one HTML file; the same figures beside a running server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palate.config import StatsConfig, UserError
from palate.data.store import Store
from palate.labeling import stats
from palate.labeling.statistics.report import MODULES, SECTIONS
from palate.labeling.statistics.terminal import WIDTH, columns
from palate.project import Project
from tests.labeling.conftest import Server
from tests.labeling.sample_panels import EVIL
from tests.labeling.voted import ask, vote


@pytest.fixture
def voted(project: Project) -> Project:
    with project.store() as store:
        assert isinstance(store, Store)
        for i in range(12):
            item = ask(store, f"idea {i}", source="s" if i % 2 else EVIL, models=("m0", EVIL))
            vote(store, item, "anna", "0>1", day=i, seconds_active=9.0 + i)
            vote(store, item, EVIL, "1>0" if i % 3 else "tie", day=i)
    return project


def printed(project: Project, capsys: pytest.CaptureFixture[str], **config: Any) -> str:
    stats.run(project, StatsConfig(project.folder, **config))
    return capsys.readouterr().out


def test_text(voted: Project, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(voted, capsys)
    assert text.startswith("Small <b>project</b>: votes of people\n\n\nPROGRESS\n\nHow far are we?\n")
    assert re.findall(r"^[A-Z]{4,}$", text, re.MULTILINE) == [SECTIONS[id].upper() for id in MODULES]
    assert max(columns(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text and "NaN" not in text
    one = printed(voted, capsys, section="models", source="s", since="2026-03-04")
    assert one.startswith("Small <b>project</b>: votes of people, source s, since 2026-03-04\n\n\nMODELS\n")
    assert "AGREEMENT" not in one


def test_json(voted: Project, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(voted, capsys, json=True))
    assert [one["id"] for one in found["sections"]] == list(MODULES)
    assert not [panel for one in found["sections"] for panel in one["panels"] if panel["late"]]
    rules = json.loads(printed(voted, capsys, json=True, kind="rule", section="progress"))
    assert rules["scope"] == {"kind": "rule"} and len(rules["sections"]) == 1


def test_html_is_one_file_without_scripts(
    voted: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "new" / "review.html"
    assert printed(voted, capsys, html=file).startswith(f"wrote {file}: ")
    text = file.read_text(encoding="utf-8")
    assert "<script" not in text and '<link rel="stylesheet"' not in text and "data-late" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:,")[^"]*"', text.replace("xlink:href", "href"))
    assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text and "{{7*7}}" in text
    for title in (SECTIONS[id] for id in MODULES):
        assert f">{title}</h1>" in text
    assert text.count('<svg role="img"') >= 3
    with pytest.raises(UserError, match="takes a file to write"):
        printed(voted, capsys, html=tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [({"since": "x"}, "since is a day like"), ({"source": "nowhere"}, "no vote is on a prompt with the source 'nowhere'")],
)  # fmt: skip
def test_what_is_wrong_is_told(
    voted: Project, capsys: pytest.CaptureFixture[str], config: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        printed(voted, capsys, **config)


def test_no_votes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(project, capsys)
    assert "None" not in text and "nan" not in text.lower().split()


@pytest.mark.slow
def test_beside_a_running_server(
    voted: Project, capsys: pytest.CaptureFixture[str], serve: Callable[..., Server], tmp_path: Path
) -> None:
    alone = [printed(voted, capsys), printed(voted, capsys, json=True, section="models", tag=None)]
    serve(voted.folder)
    assert [printed(voted, capsys), printed(voted, capsys, json=True, section="models")] == alone
    assert printed(voted, capsys, html=tmp_path / "a.html", section="annotators").startswith("wrote")
    with pytest.raises(UserError, match="there are: "):
        printed(voted, capsys, source="nowhere")
