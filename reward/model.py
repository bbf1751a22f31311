"""The reward model: a causal LM's decoder, a LoRA adapter, and one linear score at the last token.

The score of a completion is read at its last token: the stop token, or the last real one where the completion was
cut. Scores are computed in float32 whatever the training used, so a completion's reward does not depend on the
others in its batch. Not here: training (train.py), loss (losses.py).

    reward = load_reward(project, "reward-1", probe("auto", "auto"))
    reward.score([messages], ["an answer"])       # [0.83]: 0 and 1 are mean and spread over the training data
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palate.config import UserError
from palate.data.records import Message
from palate.hardware import Hardware
from palate.models import Loaded, load, lora, quiet_libraries, save_adapter
from palate.project import Project
from palate.sequences import EncodedTree
from palate.training import token_budget
from palate.tree import TreeForward, micro_batches


@dataclass
class RewardModel:
    """Scores completions; `mean` and `std` are those of raw scores over the training completions."""

    loaded: Loaded
    forward: TreeForward  # over the decoder, with the adapter where there is one
    head: nn.Linear  # (D -> 1), no bias
    max_length: int
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def new(cls, loaded: Loaded, lora_rank: int, max_length: int, seed: int) -> "RewardModel":
        """Untrained: the head drawn from N(0, 1 / sqrt(D + 1)) (Stiennon et al. 2020, appendix B.1)."""
        plain = TreeForward.of(loaded.model, loaded.hardware)
        if lora_rank:
            plain = replace(plain, model=lora(loaded.model, lora_rank, 2 * lora_rank, seed))
        else:
            loaded.model.requires_grad_(False)
        size = int(loaded.model.config.get_text_config().hidden_size)
        head = nn.Linear(size, 1, bias=False)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(head.weight, std=1 / math.sqrt(size + 1), generator=generator)
        return cls(loaded, plain, head.to(loaded.hardware.device), max_length)

    @property
    def modules(self) -> nn.ModuleList:
        """Decoder and head as one module; what requires gradients is what training changes."""
        return nn.ModuleList([self.forward.model, self.head])

    def raw_scores(self, trees: Sequence[EncodedTree]) -> Tensor:
        """(C,) float32 scores of all completions of `trees`, in order, with gradients."""
        hidden = torch.cat(self.forward.last_hidden(trees))
        scores: Tensor = self.head(hidden.float())[:, 0]
        return scores

    @torch.no_grad()
    def score_trees(self, trees: Sequence[EncodedTree]) -> list[list[float]]:
        """Normalised rewards of each tree's completions, in float32."""
        exact = replace(self, forward=replace(self.forward, hardware=self._exact()))
        scores: list[list[float]] = [[] for _ in trees]
        for group in micro_batches(trees, token_budget(self.loaded.model.config, self.loaded.hardware)):
            picked = [trees[index] for index in group]
            flat = exact.raw_scores(picked)
            parts = torch.split(flat, [len(tree.completions) for tree in picked])
            for index, part in zip(group, parts, strict=True):
                scores[index] = ((part - self.mean) / self.std).tolist()
        return scores

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> list[float]:
        """Rewards of (prompt, text) pairs; equal prompts share their computation.

        `finish_reasons[i] == "length"`: the text was cut, so no stop token is added before it is judged.
        """
        reasons = finish_reasons if finish_reasons is not None else [None] * len(texts)
        places: dict[str, list[int]] = {}
        for index, messages in enumerate(prompts):
            places.setdefault(json.dumps(list(messages), sort_keys=True), []).append(index)
        trees = [
            self.loaded.encoder.tree(
                prompts[at[0]], [texts[i] for i in at], [reasons[i] for i in at], self.max_length
            )
            for at in places.values()
        ]
        rewards = [0.0] * len(texts)
        for at, scores in zip(places.values(), self.score_trees(trees), strict=True):
            for index, score in zip(at, scores, strict=True):
                rewards[index] = score
        return rewards

    def save(self, folder: Path) -> None:
        """Adapter, head and scale; the base stays where it is."""
        if self.forward.model is not self.loaded.model:
            save_adapter(self.forward.model, folder)
        folder.mkdir(exist_ok=True)
        save_file({"weight": self.head.weight.detach().cpu()}, folder / "head.safetensors")
        content = {"mean": self.mean, "std": self.std, "max_length": self.max_length}
        (folder / "reward.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def detach(self) -> None:
        """Take the adapter off the base, which is then as it was loaded; this reward model is spent."""
        if self.forward.model is not self.loaded.model:
            self.forward.model.unload()

    def _exact(self) -> Hardware:
        return replace(self.loaded.hardware, dtype=torch.float32)


def load_reward(project: Project, run_id: str, hardware: Hardware) -> RewardModel:
    """The reward model that a run made."""
    run = project.run(run_id)
    if run.artefact.get("kind") != "reward":
        raise UserError(f"{run_id} made no reward model (status {run.status}); choose another: palate runs")
    loaded = load(project, str(run.artefact["base"]), hardware)
    if run.template_hash not in (None, loaded.encoder.template_hash):
        raise UserError(
            f"{run_id} was trained with another chat template (hash {run.template_hash}) than its base has now "
            f"({loaded.encoder.template_hash}); restore the base's tokenizer"
        )
    return read(loaded, Path(run.path) / str(run.artefact["path"]))


def read(loaded: Loaded, folder: Path) -> RewardModel:
    """What `RewardModel.save` wrote, on top of its base."""
    try:
        content: dict[str, Any] = json.loads((folder / "reward.json").read_text(encoding="utf-8"))
        weight = load_file(folder / "head.safetensors")["weight"]
    except OSError as error:
        raise UserError(f"{folder} holds no reward model: {error}") from error
    forward = TreeForward.of(loaded.model, loaded.hardware)
    if (folder / "adapter_config.json").exists():
        from peft import PeftModel

        with quiet_libraries():
            forward = replace(forward, model=PeftModel.from_pretrained(loaded.model, str(folder)).eval())
    head = nn.Linear(weight.shape[1], 1, bias=False).to(loaded.hardware.device)
    head.weight.data.copy_(weight)
    return RewardModel(
        loaded, forward, head.requires_grad_(False), content["max_length"], content["mean"], content["std"]
    )
