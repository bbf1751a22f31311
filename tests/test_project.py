"""A project folder: made once, opened with one-line errors, runs that always end and are mirrored."""

from pathlib import Path

import pytest

from palate.config import UserError
from palate.project import Project


def test_create_then_open(tmp_path: Path) -> None:
    made = Project.create(tmp_path / "deep/er", name="My project: №1")
    opened = Project.open(tmp_path / "deep/er")
    assert opened == made
    assert (opened.name, opened.base, opened.settings) == ("My project: №1", "builtin", {})
    assert sorted(path.name for path in opened.folder.iterdir()) == ["palate.duckdb", "palate.yaml", "runs"]
    assert Project.create(tmp_path / "plain").name == "plain"


def test_a_local_base_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Project.create(Path("here"), base="model").base == str(tmp_path / "model")
    assert Project.create(Path("there"), base="some/hub-id").base == "some/hub-id"


def test_settings_are_sections(tmp_path: Path) -> None:
    project = Project.create(tmp_path)
    marker = tmp_path / "palate.yaml"
    text = marker.read_text()
    marker.write_text(text + "sft:\n  epochs: 3\n")
    assert Project.open(tmp_path).settings == {"sft": {"epochs": 3}}
    marker.write_text(text + "sft: 3\n")
    with pytest.raises(UserError, match="'sft' must be a section of settings, it is 3"):
        Project.open(tmp_path)
    marker.write_text(text + "sft: [\n")
    with pytest.raises(UserError, match="palate.yaml is not valid YAML") as error:
        Project.open(tmp_path)
    assert "\n" not in str(error.value)
    assert project.database.exists()


def test_no_project_and_one_already_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no Palate project .*run `palate init"):
        Project.open(tmp_path)
    Project.create(tmp_path)
    with pytest.raises(UserError, match="already holds a project"):
        Project.create(tmp_path)


def test_runs_end_whatever_happens(tmp_path: Path) -> None:
    project = Project.create(tmp_path)
    with project.start("sft", {"epochs": 1}, ("import-1",), 3) as run:
        run.metrics(loss=1.0)
    with pytest.raises(ValueError, match="boom"), project.start("sft", {}):
        raise ValueError("boom")
    with pytest.raises(KeyboardInterrupt), project.start("dpo", {}):
        raise KeyboardInterrupt
    assert [(r.id, r.status, r.error) for r in project.runs()] == [
        ("sft-1", "done", None),
        ("sft-2", "failed", "ValueError: boom"),
        ("dpo-1", "stopped", "stopped by Ctrl-C"),
    ]
    with project.store() as store:
        mirrored = store.rows(
            "SELECT id, status, record ->> '$.parents' AS parents FROM run ORDER BY created_at, id"
        )
    assert {(row["id"], row["status"]) for row in mirrored} == {
        ("sft-1", "done"),
        ("sft-2", "failed"),
        ("dpo-1", "stopped"),
    }
    assert '["import-1"]' in {row["parents"] for row in mirrored}


def test_a_run_that_could_not_be_mirrored_is_caught_up(tmp_path: Path) -> None:
    project = Project.create(tmp_path)
    with project.start("sft", {}):
        project.database.rename(tmp_path / "elsewhere")
        project.database.write_text("no database: as if another process held it")
    project.database.unlink()
    (tmp_path / "elsewhere").rename(project.database)
    with project.store() as store:
        assert store.rows("SELECT id FROM run") == []
    with project.start("dpo", {}):
        pass
    with project.store() as store:
        assert store.rows("SELECT id FROM run ORDER BY id") == [{"id": "dpo-1"}, {"id": "sft-1"}]


def test_finding_runs(tmp_path: Path) -> None:
    project = Project.create(tmp_path)
    assert project.latest("sft") is None
    with pytest.raises(UserError, match="there is no run 'sft-9' .* the latest are: none yet"):
        project.run("sft-9")
    for stage in ("sft", "dpo", "sft"):
        with project.start(stage, {}):
            pass
    with pytest.raises(ValueError), project.start("sft", {}):
        raise ValueError
    assert project.run("dpo-1").stage == "dpo"
    latest = project.latest("sft")
    assert latest is not None
    assert latest.id == "sft-2"  # the failed one does not count
    either = project.latest("sft", "dpo")
    assert either is not None
    assert either.id == "sft-2"
    with pytest.raises(UserError, match="the latest are: sft-1, dpo-1, sft-2, sft-3"):
        project.run("sft-9")


def test_files_of_runs(tmp_path: Path) -> None:
    project = Project.create(tmp_path)
    with project.start("eval", {}) as run:
        (run.path / "summary.json").write_text('{"win": 0.5}')
    assert project.read_json("eval-1", "summary.json") == {"win": 0.5}
