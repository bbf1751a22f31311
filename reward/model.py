"""The reward model: a causal LM's decoder and one linear score at the last token.

What of the decoder trains is the method's: a LoRA adapter, every weight (full), or the last layers (freeze).

The score of a completion is read at its last token: the stop token, or the last real one where the completion was
cut. Scores are computed in float32 whatever the training used, so a completion's reward does not depend on the
others in its batch. Not here: training (train.py), loss (losses.py).

    reward = load_reward(project, "reward-1", probe("auto", "auto"))
    reward.score([messages], ["an answer"])       # [0.83]: 0 and 1 are mean and spread over the training data
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from palate.config import UserError
from palate.data.records import Message
from palate.freezing import trained_weights
from palate.fused_lora import fuse
from palate.hardware import Hardware
from palate.models import Loaded, load, lora, quiet_libraries, save_adapter
from palate.project import Project
from palate.reward.uncertainty import Uncertainty
from palate.reward.uncertainty import load as load_uncertainty
from palate.sequences import EncodedTree
from palate.training import token_budget
from palate.tree import TreeForward
from palate.tree_packing import micro_batches

Method = Literal["lora", "full", "freeze"]
WEIGHTS = "weights.safetensors"  # what full and freeze have changed


@dataclass
class RewardModel:
    """Scores completions; `mean` and `std` are those of raw scores over the training completions."""

    loaded: Loaded
    forward: TreeForward  # over the decoder, with the adapter where there is one
    head: nn.Linear  # (D -> 1), no bias
    max_length: int
    mean: float = 0.0
    std: float = 1.0
    tie: nn.Parameter | None = None  # of the model of ties, see reward.losses.outcomes
    base_weights: dict[str, Tensor] = field(default_factory=dict)  # as loaded, of what full and freeze change
    uncertainty: Uncertainty | None = None  # of scores, in log-odds

    @classmethod
    def new(
        cls, loaded: Loaded, method: Method, max_length: int, seed: int, rank: int = 16, layers: int = 0
    ) -> "RewardModel":
        """Untrained: the head drawn from N(0, 1 / sqrt(D + 1)) (Stiennon et al. 2020, appendix B.1), or the base's own."""
        plain = TreeForward.of(loaded.model, loaded.hardware)
        changed: dict[str, Tensor] = {}
        if method == "lora":
            plain = replace(plain, model=lora(loaded.model, rank, 2 * rank, seed))
        else:
            loaded.model.requires_grad_(False)
            for name, parameter in trained_weights(
                loaded.model, None if method == "full" else layers
            ).items():
                parameter.requires_grad_(True)
                changed[name] = parameter.detach().cpu().clone()
        size = int(loaded.model.config.get_text_config().hidden_size)
        head = nn.Linear(size, 1, bias=False)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(head.weight, std=1 / math.sqrt(size + 1), generator=generator)
        if loaded.head is not None:
            head.weight.data.copy_(loaded.head)
        return cls(loaded, plain, head.to(loaded.hardware.device), max_length, base_weights=changed)

    @property
    def modules(self) -> nn.ModuleDict:
        """Decoder, head and, where ties have a model, its parameter; what requires gradients is what training changes."""
        parts = {"decoder": self.forward.model, "head": self.head}
        return nn.ModuleDict(parts if self.tie is None else {**parts, "tie": nn.ParameterList([self.tie])})

    def raw_scores(self, trees: Sequence[EncodedTree]) -> Tensor:
        """(C,) float32 scores of all completions of `trees`, in order, with gradients."""
        hidden = torch.cat(self.forward.last_hidden(trees))
        scores: Tensor = self.head(hidden.float())[:, 0]
        return scores

    def score_trees(self, trees: Sequence[EncodedTree]) -> list[list[float]]:
        """Normalised rewards of each tree's completions, in float32."""
        scores: list[list[float]] = [[] for _ in trees]
        for index, states in self._states(trees):
            scores[index] = self._rewards(states)
        return scores

    def states(self, trees: Sequence[EncodedTree]) -> list[NDArray[np.float32]]:
        """Per tree (K, D): what the head sees of each completion."""
        found: list[NDArray[np.float32]] = [np.zeros((0, 0), dtype=np.float32)] * len(trees)
        for index, states in self._states(trees):
            found[index] = states.cpu().numpy()
        return found

    def score_trees_with_sd(
        self, trees: Sequence[EncodedTree]
    ) -> list[tuple[list[float], list[float] | None]]:
        """Normalised rewards of each tree's completions, and their standard deviations where they are known."""
        found: list[tuple[list[float], list[float] | None]] = [([], None)] * len(trees)
        for index, states in self._states(trees):
            sd = None
            if self.uncertainty is not None:
                sd = (self.uncertainty.sd(states.cpu().numpy()) / self.std).tolist()
            found[index] = self._rewards(states), sd
        return found

    @torch.no_grad()
    def _states(self, trees: Sequence[EncodedTree]) -> Iterator[tuple[int, Tensor]]:
        """(which tree, (K, D) float32 states), whatever arithmetic the training used, longest first."""
        exact = replace(self.forward, hardware=self._exact())
        for group in micro_batches(trees, token_budget(self.loaded.model.config, self.loaded.hardware)):
            for index, states in zip(group, exact.last_hidden([trees[i] for i in group]), strict=True):
                yield index, states.float()

    def _rewards(self, states: Tensor) -> list[float]:
        scores: list[float] = ((self.head(states).detach()[:, 0] - self.mean) / self.std).tolist()
        return scores

    def of_states(self, states: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised rewards (C,) of float32 states (C, D), and their standard deviations where they are known."""
        rewards = (self.head(states).detach()[:, 0] - self.mean) / self.std
        if self.uncertainty is None:
            return rewards, None
        sds = torch.from_numpy(self.uncertainty.sd(states.cpu().numpy()) / self.std)
        return rewards, sds.to(rewards)

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> list[float]:
        """Rewards of (prompt, text) pairs; equal prompts share their computation.

        `finish_reasons[i] == "length"`: the text was cut, so no stop token is added before it is judged.
        """
        return self.score_with_sd(prompts, texts, finish_reasons)[0]

    def score_with_sd(
        self,
        prompts: Sequence[Sequence[Message]],
        texts: Sequence[str],
        finish_reasons: Sequence[str | None] | None = None,
    ) -> tuple[list[float], list[float] | None]:
        """`score`, and the standard deviations; None where this run made none."""
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
        rewards, sds = [0.0] * len(texts), [0.0] * len(texts)
        for at, (scores, sd) in zip(places.values(), self.score_trees_with_sd(trees), strict=True):
            for place, index in enumerate(at):
                rewards[index] = scores[place]
                sds[index] = sd[place] if sd is not None else 0.0
        return rewards, sds if self.uncertainty is not None else None

    def save(self, folder: Path) -> None:
        """Adapter or changed weights, head and scale; the base stays where it is."""
        if self.forward.model is not self.loaded.model:
            save_adapter(self.forward.model, folder)
        folder.mkdir(exist_ok=True)
        if self.base_weights:
            now = dict(self.loaded.model.named_parameters())
            save_file(
                {name: now[name].detach().cpu().contiguous() for name in self.base_weights}, folder / WEIGHTS
            )
        save_file({"weight": self.head.weight.detach().cpu()}, folder / "head.safetensors")
        content = {"mean": self.mean, "std": self.std, "max_length": self.max_length}
        if self.tie is not None:
            content["tie"] = float(self.tie.detach())
        if self.uncertainty is not None:
            self.uncertainty.save(folder)
        (folder / "reward.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def detach(self) -> None:
        """Take the adapter off the base, or put its weights back: it is as it was loaded; this reward model is spent."""
        if self.forward.model is not self.loaded.model:
            self.forward.model.unload()
        _put(self.loaded.model, self.base_weights)

    def _exact(self) -> Hardware:
        return replace(self.loaded.hardware, dtype=torch.float32)


def load_reward(project: Project, run_id: str, hardware: Hardware) -> RewardModel:
    """The reward model that a run made."""
    run = project.run(run_id)
    if run.artefact.get("kind") != "reward":
        raise UserError(f"{run_id} made no reward model (status {run.status}); choose another: palate runs")
    loaded = load(project, str(run.artefact["base"]), hardware, scores=True)
    if run.template_hash not in (None, loaded.encoder.template_hash):
        raise UserError(
            f"{run_id} was trained with another chat template (hash {run.template_hash}) than its base has now "
            f"({loaded.encoder.template_hash}); restore the base's tokenizer"
        )
    return read(loaded, Path(run.path) / str(run.artefact["path"]))


def read(loaded: Loaded, folder: Path, shared: TreeForward | None = None) -> RewardModel:
    """What `RewardModel.save` wrote, on top of its base; `shared`: its adapter is in place already, on this one."""
    try:
        content: dict[str, Any] = json.loads((folder / "reward.json").read_text(encoding="utf-8"))
        weight = load_file(folder / "head.safetensors")["weight"]
    except OSError as error:
        raise UserError(f"{folder} holds no reward model: {error}") from error
    forward = shared or TreeForward.of(loaded.model, loaded.hardware)
    if shared is None and (folder / "adapter_config.json").exists():
        from peft import PeftModel

        with quiet_libraries():
            forward = replace(forward, model=PeftModel.from_pretrained(loaded.model, str(folder)).eval())
        fuse(forward.model)
    before: dict[str, Tensor] = {}
    if (folder / WEIGHTS).exists():
        changed = load_file(folder / WEIGHTS)
        now = dict(loaded.model.named_parameters())
        if missing := sorted(changed.keys() - now.keys()):
            raise UserError(f"{folder} was trained on another base: this one has no {missing[0]}")
        before = {name: now[name].detach().cpu().clone() for name in changed}
        _put(loaded.model, changed)
    head = nn.Linear(weight.shape[1], 1, bias=False).to(loaded.hardware.device)
    head.weight.data.copy_(weight)
    return RewardModel(
        loaded, forward, head.requires_grad_(False), content["max_length"], content["mean"], content["std"],
        base_weights=before, uncertainty=load_uncertainty(folder),
    )  # fmt: skip


@torch.no_grad()
def _put(model: Any, weights: Mapping[str, Tensor]) -> None:
    now = dict(model.named_parameters())
    for name, value in weights.items():
        now[name].copy_(value)
