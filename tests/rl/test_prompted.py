"""What runs share that learn from their own answers: which prompts, and what is left of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from palate.config import PpoConfig, UserError
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.rl import prompted
from palate.rl.rewards import Part

Make = Callable[..., Project]
CPU = probe("cpu", "float32")


def test_new_and_resumed_runs_have_the_same_prompts_and_settings(ranked_project: Make) -> None:
    project = ranked_project()
    asked = PpoConfig(project.folder, reward=("x.py:f",), limit=3, kl=0.25)
    with (
        pytest.raises(KeyboardInterrupt),
        prompted.started(project, asked, "ppo") as (active, config, prompts),
    ):
        assert len(prompts) == 3 and config == replace(asked, base=project.base)
        name = active.id
        raise KeyboardInterrupt
    again = PpoConfig(project.folder, resume=name, kl=9.0)
    with prompted.started(project, again, "ppo") as (active, resumed, the_same):
        assert (active.id, the_same) == (name, prompts)
        assert resumed == replace(config, device=again.device)


def test_prompts_that_leave_no_room(tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load(None, str(tiny_models["gpt2"]), CPU)
    context = loaded.model.config.max_position_embeddings
    short, long = ([{"role": "user", "content": "where is it? " * n}] for n in (1, context))
    assert prompted.fitting([short, long], loaded, 5) == [short]
    assert "1 prompts leave no room for 5 tokens and are left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"no prompt leaves room for --max-new-tokens {context}"):
        prompted.fitting([short, long], loaded, context)


def test_held_out_prompts_are_of_the_source_and_else_training_ones_stand_in(ranked_project: Make) -> None:
    project = ranked_project()
    loaded = load(project, project.base, CPU)
    trained = [[{"role": "user", "content": "trained"}]]
    config = PpoConfig(project.folder, max_new_tokens=4)
    with project.store() as store:
        rows = store.rows("SELECT source, count(*) AS n FROM prompt WHERE split = 'test' GROUP BY source")
    found, where = prompted.held_out(project, config, loaded, trained)
    assert len(found) == sum(row["n"] for row in rows) and where == f"{len(found)} held-out prompts"
    assert prompted.held_out(project, replace(config, source="nowhere"), loaded, trained) == (
        trained,
        "training prompts (there are no held-out ones)",
    )
    # a context that the held-out ones fill is no reason to fail at the end of a run
    context = loaded.model.config.max_position_embeddings
    assert prompted.held_out(project, replace(config, max_new_tokens=context), loaded, trained)[0] == trained


def test_what_judges_in_words() -> None:
    assert prompted.judged_by([Part("reward-1", 1.0), Part("x.py:f", 0.25)]) == "reward-1 + 0.25 x.py:f"
