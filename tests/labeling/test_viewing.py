"""`palate view` on a database of its own and through a server: the same words and figures."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from palate.cli import parse
from palate.config import UserError, ViewConfig
from palate.data.facts import Facts
from palate.data.preferences import rankings
from palate.data.records import Annotator
from palate.data.remote import RemoteStore
from palate.data.store import Store
from palate.data.training_views import Definition, view, views
from palate.labeling.desk import Desk
from palate.labeling.viewing import run_view
from palate.project import Project
from tests.data.test_training_views import Ballots, fill
from tests.labeling.data_app import data_app, serving, token


@pytest.fixture
def voted(project: Project) -> Project:
    """A project whose database is here."""
    with project.own_store() as store:
        fill(Ballots(store))
    return project


@pytest.fixture
def served(voted: Project, tmp_path: Path) -> Iterator[Project]:
    """A project whose records are at a server."""
    with voted.own_store() as store, Desk(store) as desk, Facts(store) as facts:
        app = data_app(store, voted.folder, desk, facts)
        with serving(app) as url:
            project = Project.create(tmp_path / "elsewhere", store=url)
            (project.folder / "token").touch(0o600)
            (project.folder / "token").write_text(token(app))
            yield project


@pytest.fixture(params=["here", "served"])
def either(request: pytest.FixtureRequest) -> Project:
    name = "voted" if request.param == "here" else "served"
    found: Project = request.getfixturevalue(name)
    return found


def palate_view(project: Project, *flags: str) -> None:
    run_view(project, parse(ViewConfig, "view", [*flags, "--project", str(project.folder)]))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_save_show_list_and_forget(either: Project, capsys: pytest.CaptureFixture[str]) -> None:
    palate_view(either)
    assert said(capsys).startswith("no view is saved; for example: palate view careful --aggregate majority")
    flags = "careful --aggregate majority --no-ties --min-agreement 0.6 --exclude cy"
    palate_view(either, *flags.split())
    saved = said(capsys)
    lines = saved.splitlines()
    assert lines[0] == "saved the view 'careful'"
    assert [line.split()[-6:-3] for line in lines[-3:-1]] == [["5", "13", "11"], ["2", "2", "4"]]
    assert "37.5 %" in saved and "100.0 %" in saved and "without cy" in saved
    assert lines[-1] == "next: palate reward --view careful, palate dpo --view careful"
    with either.store() as store:
        assert view(store, "careful").definition == Definition(
            "majority", ties=False, min_agreement=0.6, exclude=(Annotator("cy").id,)
        )
    palate_view(either, "careful")
    assert said(capsys).splitlines() == lines[1:]
    palate_view(either, "plain", "--aggregate", "vote")
    assert said(capsys).startswith("saved the view 'plain'")
    palate_view(either)
    listed = [line.split()[0] for line in said(capsys).splitlines()]
    assert listed[-3:] == ["without", "careful", "plain"]
    palate_view(either, "careful", "--min-strength", "2")
    assert said(capsys).startswith("replaced the view 'careful'")
    palate_view(either, "careful", "--delete")
    assert said(capsys) == "forgot the view 'careful'; runs that took it keep its definition\n"
    with either.store() as store:
        assert [one.name for one in views(store)] == ["plain"]


def test_json(either: Project, capsys: pytest.CaptureFixture[str]) -> None:
    palate_view(either, "m", "--aggregate", "majority", "--json")
    saved = json.loads(said(capsys))
    assert (saved["name"], saved["aggregation"], saved["weights"]) == ("m", "majority", None)
    assert saved["before"]["votes"] == 11
    assert saved["after"] == {
        "comparisons": 5, "pairs": 7, "votes": 9, "agreement": 3 / 8, "agreed_on": 8, "longer": None, "longer_of": 0
    }  # fmt: skip
    palate_view(either, "--json")
    assert json.loads(said(capsys)) == [saved]


def test_a_stage_elsewhere_gets_the_same_rows(voted: Project) -> None:
    """Its queries pass the server's check, whatever the view."""
    definitions = [
        Definition("majority", 2, True, False, 0.6, True, (Annotator("cy").id,), ("human",), tag=None),
        Definition("reliability", min_agreement=0.5, source="test"),
        Definition("vote", ties=False, since=date(2026, 1, 1), until=date(2026, 12, 31), purposes=("train",)),
        Definition("majority", tag="none"),
    ]
    with voted.own_store() as store, Desk(store) as desk, Facts(store) as facts:
        app = data_app(store, voted.folder, desk, facts)
        weights = {Annotator("ann").id: 2.0, Annotator("bob").id: 0.0}
        with serving(app) as url, RemoteStore(url, token(app), pauses=()) as remote:
            for one in definitions:
                remote.put_view("a", one.as_dict(), None, None)
                if one.aggregation == "reliability":
                    assert set(view(remote, "a").weights or {}) == {
                        Annotator(name).id for name in ("ann", "bob", "cy")
                    }
                    store.put_view("a", one.as_dict(), weights, None)
                taken = view(remote, "a")
                assert taken == view(store, "a")
                there = rankings(remote, view=taken)
                assert there.equals(rankings(store, view=taken))
                assert (there.num_rows > 0) == (one.tag is None)


def test_weights_are_kept_until_they_are_renewed(voted: Project, capsys: pytest.CaptureFixture[str]) -> None:
    palate_view(voted, "trusted", "--aggregate", "reliability", "--kinds", "human")
    assert "weights of 3 annotators are kept in the view" in said(capsys)
    with voted.store() as store:
        first = view(store, "trusted")
        ballots = Ballots(store)  # type: ignore[arg-type]
        ballots.votes = 100
        ballots.vote(ballots.compare("new"), "0>1", "dan")
    palate_view(voted, "trusted")
    assert "weights of 3 annotators" in said(capsys)
    palate_view(voted, "trusted", "--refresh")
    assert "weights of 4 annotators" in said(capsys)
    with voted.store() as store:
        renewed = view(store, "trusted")
    assert renewed.definition == first.definition
    assert set(renewed.weights or {}) - set(first.weights or {}) == {Annotator("dan").id}


def test_before_anybody_voted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    palate_view(project, "trusted", "--aggregate", "reliability")
    found = said(capsys)
    assert "it keeps no vote, so nothing can be trained on it" in found
    assert "nobody has decided a pair that tells how reliable they are: every vote weighs the same" in found


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("other", "there is no view 'other': none is saved yet"),
        ("other --delete", "there is no view 'other'"),
        ("other --refresh", "there is no view 'other'"),
        ("--aggregate majority", "which view? For example"),
        ("--delete", "which view? For example"),
        ("a --delete --refresh", "--delete, --refresh and settings of a view don't go together"),
        ("a --delete --no-ties", "don't go together"),
        ("a/b --no-ties", "a view's name has up to 64 letters"),
        ("a --exclude nobody", "there is no annotator 'nobody'"),
        ("a --keep-single", "keep_single goes with min_agreement, which is not set"),
        ("a --since yesterday", "the setting 'since' of a view can't be 'yesterday'"),
        ("a --min-agreement 60", "min_agreement is a share above 0 and at most 1"),
    ],
)
def test_what_can_not_be_done(voted: Project, flags: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        palate_view(voted, *flags.split())
    assert says in str(error.value) and "\n" not in str(error.value)
    with voted.store() as store:
        assert views(store) == []


def test_a_server_refuses_in_the_same_words(served: Project) -> None:
    for flags, says in (
        ("other --delete", "there is no view 'other': none is saved yet"),
        ("a --exclude nobody", "there is no annotator 'nobody'"),
        ("a/b --no-ties", "a view's name has up to 64 letters"),
    ):
        with pytest.raises(UserError, match=says):
            palate_view(served, *flags.split())


def test_every_setting_of_a_definition_has_a_flag(voted: Project) -> None:
    flags: dict[str, Any] = {
        "min_strength": 2, "unknown_strength": True, "ties": False, "min_agreement": 0.6, "keep_single": True,
        "exclude": ("ann",), "kinds": ("human",), "source": "s", "tag": "t", "purposes": ("train", "gold"),
        "since": "2026-01-01", "until": "2026-02-01",
    }  # fmt: skip
    assert set(flags) | {"aggregation"} == set(Definition().as_dict())
    run_view(voted, replace(ViewConfig("full", "reliability", project=voted.folder), **flags))
    with voted.store() as store:
        assert isinstance(store, Store)
        found = view(store, "full").definition.as_dict()
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in flags.items()}
    assert found == {**listed, "exclude": [Annotator("ann").id], "aggregation": "reliability"}
