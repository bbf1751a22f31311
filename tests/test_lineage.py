"""`palate runs`: from a run back to its votes and files, with the database and without, and when rows changed."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate import lineage, lineage_text
from palate.config import DpoConfig, RunsConfig, SampleConfig, SftConfig, UserError, as_dict
from palate.data.preferences import rankings
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.project import Project
from palate.runs import file_hash


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """import-1 <- sft-1 <- sample-1 <- simulate-1 and a person's vote <- dpo-1."""
    project = Project.create(tmp_path / "project")
    source = tmp_path / "ideas.jsonl"
    source.write_text('{"prompt": "Hello"}\n', encoding="utf-8")
    with project.start("import", {"files": [str(source)]}) as run:
        prompts = [
            Prompt(({"role": "user", "content": f"Hello {n}"},), split="train", run_id=run.id)
            for n in range(3)
        ]
        with project.store() as store:
            store.add_prompts(prompts)
        run.update(files={str(source): {"sha256": file_hash(source), "rows": 1}})
    with project.start("sft", as_dict(SftConfig(epochs=3)), ["import-1"], 0) as run:
        run.freeze("train", pa.table({"prompt_id": [prompts[0].id], "text": ["Hello"]}))
        run.update(artefact={"kind": "model", "path": "model", "base": "builtin"})
    with project.start("sample", as_dict(SampleConfig()), ["sft-1"], 0) as run:
        completions = [Completion(p.id, text, "sft-1", run_id=run.id) for p in prompts for text in "ab"]
        comparisons = [
            Comparison(p.id, tuple(c.id for c in completions if c.prompt_id == p.id), run_id=run.id)
            for p in prompts
        ]
        with project.store() as store:
            store.add_completions(completions)
            store.add_comparisons(comparisons)
    with project.start("simulate", {}, ["sample-1"]) as run, project.store() as store:
        rule, person = Annotator("rule 1", "rule"), Annotator("Ada")
        store.add_annotators([rule, person])
        voters = [(rule, run.id), (rule, run.id), (person, None)]
        assignments, votes = [], []
        for number, ((voter, brought_by), comparison) in enumerate(zip(voters, comparisons, strict=True)):
            assignment = Assignment(comparison.id, voter.id, comparison.completion_ids)
            ranking = tuple((one,) for one in comparison.completion_ids)
            assignments.append(assignment)
            votes.append(Vote(assignment.id, "ranked", ranking, run_id=brought_by, id=f"vote-{number}"))
        store.add_assignments(assignments)
        store.add_votes(votes)
    with project.store() as store:
        rows = rankings(store)
    with project.start("dpo", as_dict(DpoConfig(beta=0.2)), ["sft-1"], 0) as run:
        run.freeze("train", rows)
        run.update(artefact={"kind": "adapter", "path": "adapter", "base": "sft-1"})
        run.metrics(loss=0.5, held_out=None)
    return project


def test_walks_back_to_votes_and_files(project: Project) -> None:
    found = lineage.walk(project, "dpo-1")
    assert list(found.steps) == ["dpo-1", "sft-1", "simulate-1", "sample-1", "import-1"]
    step = found.steps["dpo-1"]
    assert step.settings == {"beta": 0.2}
    assert step.origins == {
        "sft-1": ("parent",),
        "simulate-1": ("2 votes",),
        "sample-1": ("6 completions",),
        "import-1": ("3 prompts",),
    }
    assert step.votes is not None
    assert sorted(step.votes.ids) == ["vote-0", "vote-1", "vote-2"]
    assert (step.votes.annotators, step.votes.by_kind) == (2, {"human": 1, "rule": 2})
    assert step.votes.by_run == {"people": 1, "simulate-1": 2}
    assert (found.problems, found.notes) == ([], ())
    assert found.steps["sft-1"].settings == {"epochs": 3}
    (source,) = found.steps["import-1"].inputs
    assert (source.kind, source.state, source.rows) == ("file", "verified", 1)


def test_the_tree_as_text(project: Project) -> None:
    lines = lineage_text.text(lineage.walk(project, "dpo-1"), votes=True).splitlines()
    text = "\n".join(lines)
    assert lines[0].startswith("dpo-1  done, ")
    assert "settings  beta 0.2" in text
    assert "votes     3 of 2 annotators; 1 by human, 2 by rule; 1 at the screen, 2 from simulate-1" in text
    assert all(f"vote-{n}" in text for n in range(3))
    assert "├─ sft-1  (parent)" in text
    assert "└─ import-1  (3 prompts) (above)" in text
    assert "verified  all 2 frozen tables hold what the runs used" in text
    assert "vote-0" not in lineage_text.text(lineage.walk(project, "dpo-1"))


def test_changed_rows_are_named(project: Project) -> None:
    path = project.folder / "runs/sft-1/data/train.parquet"
    pq.write_table(pa.table({"prompt_id": ["x"], "text": ["Something else"]}), path)
    found = lineage.walk(project, "dpo-1")
    assert found.problems == [f"sft-1: {path} is not what the run used"]
    assert f"problem   sft-1: {path} is not what the run used" in lineage_text.text(found)
    path.unlink()
    assert lineage.walk(project, "dpo-1").problems == [f"sft-1: {path} is gone"]


def test_rewritten_with_the_same_rows_is_the_same(project: Project) -> None:
    path = project.folder / "runs/dpo-1/data/train.parquet"
    pq.write_table(pq.read_table(path), path, compression="gzip", row_group_size=1)
    assert lineage.walk(project, "dpo-1").problems == []


def test_a_source_file_that_changed_or_went_is_told_but_is_no_problem(project: Project) -> None:
    source = project.folder.parent / "ideas.jsonl"
    source.write_text("other", encoding="utf-8")
    assert lineage.walk(project, "import-1").steps["import-1"].inputs[0].state == "differs"
    source.unlink()
    found = lineage.walk(project, "dpo-1")
    assert found.problems == []
    assert "not there any more" in lineage_text.text(found)


def test_without_the_database(project: Project) -> None:
    project.database.rename(project.folder / "elsewhere.duckdb")
    found = lineage.walk(project, "dpo-1")
    assert list(found.steps) == ["dpo-1", "sft-1", "import-1"]  # by parents alone
    votes = found.steps["dpo-1"].votes
    assert votes is not None
    assert (len(votes.ids), votes.annotators, votes.by_kind) == (3, 2, {})
    assert "was not looked up" in found.notes[0]
    assert not project.database.exists()  # nor made by looking


def test_while_another_process_owns_the_database(project: Project) -> None:
    code = f"""
import sys
from palate.data.store import Store
with Store({str(project.database)!r}):
    print("open", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        found = lineage.walk(project, "dpo-1")
        owner.communicate("")
    assert list(found.steps) == ["dpo-1", "sft-1", "import-1"]
    assert "is open in another process" in found.notes[0]
    assert "was not looked up" in lineage_text.text(found)


def test_weights_are_hashed(project: Project) -> None:
    adapter = project.folder / "runs/dpo-1/adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    sha = hashlib.sha256(b"weights").hexdigest()
    found = lineage.walk(project, "dpo-1")
    assert found.steps["dpo-1"].weights == lineage.Weights(("adapter_model.safetensors",), 7, sha)
    assert f"adapter on sft-1, runs/dpo-1/adapter, 0.0 MB, sha256 {sha[:12]}" in lineage_text.text(found)


def test_votes_that_were_erased_are_counted(project: Project) -> None:
    with project.store() as store:
        store.write("DELETE FROM vote WHERE id = 'vote-2'")
    assert lineage.walk(project, "dpo-1").steps["dpo-1"].notes == (
        "1 of its votes are no longer in the database",
    )


def test_a_deleted_run_is_named(project: Project) -> None:
    (project.folder / "runs/simulate-1/run.json").unlink()
    found = lineage.walk(project, "dpo-1")
    assert found.steps["dpo-1"].notes == ("simulate-1 is not among the runs any more",)
    assert "simulate-1  (2 votes) (gone)" in lineage_text.text(found)


def test_list_and_json(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    lineage.run_command(project, RunsConfig(project=project.folder))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "status", "parents", "when", "(UTC)", "took"]
    assert [line.split()[0] for line in lines[1:6]] == [
        "import-1",
        "sft-1",
        "sample-1",
        "simulate-1",
        "dpo-1",
    ]
    assert lines[5].endswith("loss 0.5")

    lineage.run_command(project, RunsConfig("show", "dpo-1", project.folder, json=True))
    found = json.loads(capsys.readouterr().out)
    assert (found["root"], found["problems"]) == ("dpo-1", [])
    assert sorted(found["steps"]["dpo-1"]["votes"]["ids"]) == ["vote-0", "vote-1", "vote-2"]
    assert found["steps"]["sft-1"]["run"]["config"]["epochs"] == 3

    lineage.run_command(project, RunsConfig(project=project.folder, json=True))
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_unknown_or_missing_run(project: Project) -> None:
    with pytest.raises(UserError, match="there is no run 'dpo-9'"):
        lineage.run_command(project, RunsConfig("show", "dpo-9", project.folder))
    with pytest.raises(UserError, match="which run"):
        lineage.run_command(project, RunsConfig("show", None, project.folder))


def test_an_empty_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lineage.run_command(Project.create(tmp_path / "p"), RunsConfig())
    assert capsys.readouterr().out == "no runs yet; next: palate import FILE, then palate sft\n"


def test_model_card(project: Project) -> None:
    card = lineage.model_card(project, project.run("dpo-1"))
    head, _, body = card.partition("---\n")[2].partition("---\n")
    assert head == "library_name: peft\ntags: [palate, dpo]\n"  # the hub knows no model "sft-1"
    assert "a LoRA adapter on `sft-1`" in body
    assert "- loss: 0.5" in body
    assert "partly not people's: they come from rule annotators" in body
    assert "2 from simulate-1" in body
    card = lineage.model_card(project, project.run("sft-1"))
    assert "It learned from no votes" in card
    assert "library_name: transformers" in card
    assert str(project.folder) not in card  # a card may be published


def test_ancestors_by_parents(project: Project) -> None:
    runs = {run.id: run for run in project.runs()}
    assert lineage.ancestors(runs, "dpo-1") == ["dpo-1", "sft-1", "import-1"]
    assert lineage.ancestors(runs, "builtin") == []
