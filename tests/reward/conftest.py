"""A project with rankings by a rule that a tiny random model can learn in seconds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.project import Project

Make = Callable[..., Project]


@pytest.fixture
def ranked_project(tiny_models: dict[str, Path], tmp_path: Path) -> Make:
    """make(name, prompts, held_out): `mat` wins over `ball` over two tied `cat`s; shorter always wins."""

    def make(name: str = "llama", prompts: int = 24, held_out: int = 6) -> Project:
        project = Project.create(tmp_path / "project", base=str(tiny_models[name]))
        rule = Annotator("rule", kind="rule")
        asked = [
            Prompt(
                ({"role": "user", "content": f"where is {i}?"},), split="test" if i < held_out else "train"
            )
            for i in range(prompts)
        ]
        with project.store() as store:
            store.add_prompts(asked)
            store.add_annotators([rule])
            for i, prompt in enumerate(asked):
                texts = [f"the mat {i}", f"the red ball {i}", f"a cat {i} sat down", f"a cat sat down {i}"]
                made = [Completion(prompt.id, text, finish_reason="stop") for text in texts]
                ids = [c.id for c in made]
                comparison = Comparison(prompt.id, tuple(sorted(ids)))
                assignment = Assignment(comparison.id, rule.id, comparison.completion_ids)
                store.add_completions(made)
                store.add_comparisons([comparison])
                store.add_assignments([assignment])
                tiers = ((ids[0],), (ids[1],), (ids[2], ids[3]))
                store.add_votes([Vote(assignment.id, "ranked", tiers, strength=i % 4)])
        return project

    return make
