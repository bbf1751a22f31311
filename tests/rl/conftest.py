"""What several tests of policies share."""

import json
from pathlib import Path

import pytest

from palate import importing
from palate.config import ImportConfig
from palate.data.demo import ideas, instruction
from palate.project import Project


@pytest.fixture
def writing_project(tmp_path: Path) -> Project:
    """The built-in model and 40 prompts of the demo: it writes, where what a random model says hardly depends on its
    adapters. `taste.py:brief` in its folder prefers short answers: minus a fiftieth of the characters."""
    project = Project.create(tmp_path / "project")
    file = tmp_path / "ideas.jsonl"
    file.write_text("".join(json.dumps({"prompt": instruction(idea)}) + "\n" for idea in ideas(40, 0)))
    importing.run(project, ImportConfig((file,), project=project.folder))
    (project.folder / "taste.py").write_text(
        "def brief(prompts, texts):\n    return [-len(text) / 50 for text in texts]\n"
    )
    return project
