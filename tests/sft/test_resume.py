"""A fine-tuning that is killed or stopped goes on as if nothing had happened."""

import json
from pathlib import Path

import pytest
import torch

from palate import checkpoints
from palate.config import SftConfig, UserError
from palate.data.records import Completion, Prompt
from palate.generation import Sampled
from palate.hardware import probe
from palate.models import load
from palate.runs import CHECKPOINTS
from palate.sft import fitting, train
from palate.sft.checkpoints import Before, before
from palate.sft.dataset import Row
from palate.sft.methods import trainee
from palate.sft.train import run
from palate.trainers import latest, step_of, writing
from tests.sft.test_train import config, make_project
from tests.test_checkpoints import killed_at, made

SETTINGS = {"epochs": 12.0, "batch_size": 3, "learning_rate": 1e-2}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "dora"])
def test_kill_and_resume_is_bit_for_bit_the_uninterrupted_run(
    tiny_models: dict[str, Path], tmp_path: Path, method: str
) -> None:
    project = make_project(tmp_path / "project", tiny_models["llama"])
    torch.set_num_threads(1)
    whole = run(project, config(project, method=method, **SETTINGS))
    expected = made(project, whole.id)
    assert len(expected[1]) == 80 and expected[0]

    flags = ["--device", "cpu", "--dtype", "float32", "--method", method]
    flags += [
        text for name, value in SETTINGS.items() for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    one = killed_at(project, "sft", 3, *flags)
    assert [r.status for r in project.runs() if r.id == one] == ["interrupted"]
    assert killed_at(project, "sft", 44, "--resume", one) == one  # and once more, later
    with project.store() as store:  # what is there by now is not what the run began with
        more = [Prompt(({"role": "user", "content": f"and {i}?"},), split="test") for i in range(9)]
        store.add_prompts(more)
        store.add_completions([Completion(p.id, "on the mat", role="demonstration") for p in more])
    resumed = run(project, SftConfig(project.folder, resume=one, device="cpu"))
    assert (resumed.id, resumed.status, resumed.error) == (one, "done", None)
    assert made(project, one) == expected
    assert [line["step"] for line in made(project, one)[1]] == list(range(1, 81))
    assert resumed.metrics == whole.metrics
    reports = [(Path(r.path) / "report.md").read_text().partition("\n")[2] for r in (whole, resumed)]
    assert reports[0] == reports[1]
    assert not (Path(resumed.path) / CHECKPOINTS).exists()
    assert json.dumps(resumed.config) == json.dumps(whole.config)


def test_ctrl_c_leaves_a_run_that_goes_on(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = make_project(tmp_path / "project", tiny_models["gpt2"])
    whole = run(project, config(project, method="freeze", train=("head",)))

    def stop(loss: float, step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train.doctor, "check_finite", stop)
        patched.setattr(checkpoints, "EVERY", 0.0)
        with pytest.raises(KeyboardInterrupt):
            run(project, config(project, method="freeze", train=("head",)))
    record = project.run("sft-2")
    folder = Path(record.path) / CHECKPOINTS
    assert (record.status, record.artefact) == ("stopped", {})
    assert files(folder) == ["before.json", "step-5", "writing"]
    assert "sft-2 is stopped; go on with: palate sft --resume sft-2" in capsys.readouterr().out
    with pytest.raises(UserError, match="made no model"):
        load(project, "sft-2", probe("cpu", "float32"))

    (folder / "writing/checkpoint-9").mkdir()  # as a kill in the middle of the next one leaves it
    resumed = run(project, SftConfig(project.folder, resume="sft-2", device="cpu"))
    assert "sft-2: goes on after step 5" in capsys.readouterr().out
    assert made(project, "sft-2") == made(project, "sft-1") and resumed.metrics == whole.metrics
    with pytest.raises(UserError, match="sft-2 is done: there is nothing to resume"):
        run(project, SftConfig(project.folder, resume="sft-2"))


def test_a_run_without_rows_can_not_go_on(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", tiny_models["gpt2"], rows=6)
    with pytest.raises(RuntimeError), project.start("sft", {}):
        raise RuntimeError
    with pytest.raises(UserError, match="sft-1 was stopped before it had its rows: begin anew"):
        run(project, SftConfig(project.folder, resume="sft-1"))


def test_a_checkpoint_between_two_lines_of_the_log_waits(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 900 steps every fourth is logged; what is logged after a resumption is an average over the same four."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    settings = SftConfig(epochs=225.0, batch_size=1, learning_rate=1e-3, device="cpu", method="freeze")
    rows = [Row([5, 6, 7, 8 + i], [-100, 6, 7, 8 + i], False, False) for i in range(4)]
    logs: dict[str, dict[int, float]] = {}

    class Enough(Exception): ...

    def fit(name: str, checkpoint: Path | None = None, until: int = 10_000) -> list[torch.Tensor]:
        loaded = load(None, str(tiny_models["gpt2"]), probe("cpu", "float32"))

        def log(step: int, figures: dict[str, float]) -> None:
            if "loss" in figures:
                logs.setdefault(name, {})[step] = figures["loss"]
            if step > until:
                raise Enough

        fitting.fit(trainee(loaded, settings), loaded, rows, settings, log, tmp_path, checkpoint)
        return list(loaded.model.parameters())

    with pytest.raises(Enough):
        fit("first", until=20)
    found = latest(tmp_path)
    assert found is not None and step_of(found) == 20
    with pytest.raises(Enough):
        fit("second", found, until=40)
    monkeypatch.setattr(checkpoints, "EVERY", 1e9)
    with pytest.raises(Enough):
        fit("whole", until=40)
    assert list(logs["second"]) == [24, 28, 32, 36, 40, 44]
    assert {**logs["first"], **logs["second"]} == logs["whole"]


def test_what_was_measured_before_comes_back(tmp_path: Path) -> None:
    assert before(tmp_path / "none") is None and latest(tmp_path / "none") is None
    was = Before([[{"role": "user", "content": "wo?"}]], [Sampled("ä", [3, 4], "stop")], 0.1 + 0.2)
    was.save(tmp_path / "kept")
    assert before(tmp_path / "kept") == was
    Before([], [], None).save(tmp_path / "kept")
    assert before(tmp_path / "kept") == Before([], [], None)
    for name in ("step-9", "step-120", "writing"):
        (tmp_path / "kept" / name).mkdir()
    assert latest(tmp_path / "kept") == tmp_path / "kept" / "step-120"
    (tmp_path / "kept/writing/rest").touch()
    assert writing(tmp_path / "kept").name == "writing" and not (tmp_path / "kept/writing").exists()
    assert json.loads((tmp_path / "kept/before.json").read_text())["samples"] == []
