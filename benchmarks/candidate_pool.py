"""Completions of the fine-tuned built-in model with their features and what four hidden tastes think of them.

Made by the product's own commands (import, sft, sample), once; kept in the temporary folder as `palate-pool-*.npz`.
Features are the fine-tuned decoder's last hidden states, centred, scaled and projected on their principal components.

    pool = candidate_pool.load(prompts=900, k=4, size=64)
    pool.features (P, K, D), pool.prompts (P, D), pool.tastes[name] (P, K), pool.words (P, K)
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """P prompts, K completions each, D features."""

    features: Floats  # (P, K, D)
    tastes: dict[str, Floats]  # name -> (P, K), higher is better
    words: Floats  # (P, K)


def load(prompts: int, k: int, size: int, seed: int = 0, states: tuple[str, ...] = ("last",)) -> Pool:
    """The pool, made when it is not there yet (minutes on two cores)."""
    file = Path(tempfile.gettempdir()) / f"palate-pool-2-{prompts}-{k}-{seed}.npz"
    if not file.exists():
        _make(file, prompts, k, seed)
    raw = np.load(file)
    hidden = np.concatenate([_standard(raw[name]) for name in states], axis=-1)  # (P, K, H)
    flat = hidden.reshape(-1, hidden.shape[-1])
    centred = flat - flat.mean(axis=0)
    _, _, ways = np.linalg.svd(centred, full_matrices=False)
    projected = centred @ ways[:size].T
    projected /= np.sqrt((projected**2).sum(axis=1).mean())
    names = [name.removeprefix("taste_") for name in raw.files if name.startswith("taste_")]
    return Pool(
        projected.reshape(*hidden.shape[:2], -1), {name: raw[f"taste_{name}"] for name in names}, raw["words"]
    )


def _standard(states: NDArray[np.floating]) -> Floats:
    """Centred, of unit mean square."""
    x = states.astype(np.float64)
    x = x - x.mean(axis=(0, 1))
    return np.asarray(x / np.sqrt((x**2).mean()))


def _make(file: Path, prompts: int, k: int, seed: int) -> None:
    from palate import importing, sampling
    from palate.config import ImportConfig, SampleConfig, SftConfig
    from palate.data.demo import demonstrations, ideas, instruction
    from palate.data.taste import TASTES, words_of
    from palate.hardware import probe
    from palate.models import load as load_model
    from palate.project import Project
    from palate.sft import train as sft

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pool"
        Project.create(folder)
        project = Project.open(folder)
        shown, asked = folder / "demonstrations.jsonl", folder / "ideas.jsonl"
        shown.write_text(
            "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in demonstrations(1200, seed))
        )
        asked.write_text(
            "".join(json.dumps({"prompt": instruction(idea)}) + "\n" for idea in ideas(prompts, seed))
        )
        importing.run(project, ImportConfig((shown, asked), project=folder))
        tuned = sft.run(project, SftConfig(folder, seed=seed))
        sampling.run(project, SampleConfig(folder, k=k, split="all", source="ideas.jsonl", seed=seed))
        with project.store() as store:
            rows = store.rows(
                "SELECT p.id, p.messages, c.text FROM completion c JOIN prompt p ON p.id = c.prompt_id "
                "WHERE c.run_id IS NOT NULL AND p.source = 'ideas.jsonl' ORDER BY p.id, c.id"
            )
        grouped: dict[str, list[tuple[list[dict[str, str]], str]]] = {}
        for row in rows:
            grouped.setdefault(str(row["id"]), []).append((json.loads(row["messages"]), str(row["text"])))
        whole = [group for group in grouped.values() if len(group) == k]
        loaded = load_model(project, tuned.id, probe("auto", "auto"))
        last, mean = _hidden(loaded, whole)
        tastes = {
            f"taste_{name}": np.array(
                [[t.score(m[-1]["content"], text) for m, text in group] for group in whole]
            )
            for name, t in TASTES.items()
        }
        words = np.array([[len(words_of(text)) for _, text in group] for group in whole], dtype=np.float64)
        np.savez(file, last=last, mean=mean, words=words, **tastes)


def _hidden(loaded: Any, whole: list[list[tuple[list[Any], str]]]) -> tuple[Floats, Floats]:
    """The decoder's output, (P, K, H), at each completion's last token and as the mean over the completion's tokens."""
    import torch

    from palate.tree import TreeForward
    from palate.tree_packing import micro_batches

    forward = TreeForward.of(loaded.model, loaded.hardware)
    trees = [loaded.encoder.tree(group[0][0], [text for _, text in group]) for group in whole]
    last: list[Any] = [None] * len(trees)
    mean: list[Any] = [None] * len(trees)
    with torch.no_grad():
        for batch in micro_batches(trees, 8192):
            for place, rows in zip(batch, forward.last_hidden([trees[i] for i in batch]), strict=True):
                last[place] = rows.float().cpu().numpy()
        for place, tree in enumerate(trees):
            mean[place] = _means(loaded.model, tree)
    return np.stack(last), np.stack(mean)


def _means(model: Any, tree: Any) -> Floats:
    """(K, H) means over each completion's tokens, from one padded batch."""
    import torch

    rows = [[*tree.prompt, *ids] for ids in tree.completions]
    longest, begin = max(map(len, rows)), len(tree.prompt)
    ids = torch.tensor([row + [row[-1]] * (longest - len(row)) for row in rows], device=model.device)
    states = model(ids, output_hidden_states=True, use_cache=False).hidden_states[-1].float()
    return np.stack([states[i, begin : len(row)].mean(dim=0).cpu().numpy() for i, row in enumerate(rows)])
