"""A small project with everything an evaluation takes: models, votes, a reward. Real parts, made once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from palate.config import DpoConfig, RewardConfig, SampleConfig, SftConfig, SimulateConfig, as_dict
from palate.data import demo
from palate.data.records import Comparison, Completion, Prompt
from palate.generation import sample
from palate.hardware import probe
from palate.labeling import simulate
from palate.models import Loaded, load, save_model
from palate.project import Project
from palate.reward import train as reward
from palate.rl import dpo

TRAIN, TEST = 12, 8


def _add_prompts(project: Project) -> list[Prompt]:
    with project.start("import", {"files": ["ideas.jsonl"]}) as run:
        prompts = [
            Prompt(
                ({"role": "user", "content": demo.instruction(idea)},),
                source="ideas.jsonl",
                split="train" if number < TRAIN else "test",
                run_id=run.id,
            )
            for number, idea in enumerate(demo.ideas(TRAIN + TEST, 0))
        ]
        with project.store() as store:
            store.add_prompts(prompts)
    return prompts


def _save_as_sft(project: Project, loaded: Loaded) -> None:
    """The built-in model a little disturbed: what matters here is that it is another model."""
    with project.start("sft", as_dict(SftConfig(epochs=1)), ("import-1",), 0) as run:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in loaded.model.parameters():
                weight += 0.02 * weight.std() * torch.randn(weight.shape, generator=generator)
        save_model(loaded, run.path / "model")
        run.update(artefact={"kind": "model", "path": "model", "base": "builtin"})


def _add_candidates(project: Project, loaded: Loaded, prompts: Sequence[Prompt]) -> None:
    with project.start("sample", as_dict(SampleConfig(k=3)), ("sft-1",), 0) as run:
        completions, comparisons = [], []
        drawn = sample(loaded, [p.messages for p in prompts], 3, max_new_tokens=16)
        for prompt, row in zip(prompts, drawn, strict=True):
            made = {
                one.text: Completion(
                    prompt.id, one.text, "sft-1", finish_reason=one.finish_reason, run_id=run.id
                )
                for one in row
            }
            completions += made.values()
            if len(made) > 1:
                comparisons.append(
                    Comparison(prompt.id, tuple(one.id for one in made.values()), run_id=run.id)
                )
        with project.store() as store:
            store.add_completions(completions)
            store.add_comparisons(comparisons)


@pytest.fixture(scope="session")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """import-1, sft-1, sample-1, simulate-1, reward-1, dpo-1; 8 held-out prompts."""
    folder: Path = tmp_path_factory.mktemp("loop") / "project"
    project = Project.create(folder, name="A <small> loop")
    prompts = _add_prompts(project)
    loaded = load(project, "builtin", probe("cpu", "float32"))
    _save_as_sft(project, loaded)
    _add_candidates(project, loaded, prompts[:TRAIN])
    simulate.run(project, SimulateConfig(folder, taste="terse", votes=TRAIN))
    reward.run(project, RewardConfig(folder, device="cpu", dtype="float32"))
    dpo.run(project, DpoConfig(folder, epochs=1, device="cpu", dtype="float32"))
    return project
