"""What reward training and DPO share: which rankings, as which tokens, and the training loop.

One optimiser step covers `batch_size` rankings, in micro-batches of similar length that fit the token budget;
the loss of a step is the weighted mean over its pairs, however it was cut. Not here: losses, models, saving.
"""

import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from tqdm import tqdm

from palate.checkpoints import Best, Checkpoints, State
from palate.config import DpoConfig, RewardConfig, UserError, as_dict, of_run
from palate.data import training_views
from palate.data.preferences import Annotators, origins, rankings
from palate.data.training_views import View
from palate.doctor import check_finite, cut_message
from palate.hardware import Hardware
from palate.parallel import team
from palate.project import Project
from palate.runs import ActiveRun
from palate.sequences import EncodedTree, Encoder
from palate.tree_packing import micro_batches

WARMUP = 0.1  # share of the steps in which the learning rate rises
CLIP = 1.0  # gradients are scaled down to this norm
CPU_ACTIVATIONS = 5e8  # bytes; with three times as many a model of 110M weights is no faster, and takes three times the memory

Stats = dict[str, float]
MicroLoss = Callable[[list[int]], tuple[Tensor, Stats]]


@dataclass(frozen=True)
class Pairs:
    """The pairs of several rankings as indices into their concatenated completions. All (P,)."""

    winners: Tensor
    losers: Tensor
    ties: Tensor
    weights: Tensor
    strengths: Tensor  # 0..3 how much better the winner is; NaN where nobody said
    flips: (
        Tensor  # 0 <= e < 0.5: how likely the vote names the wrong one (column `flip`, 0 where there is none)
    )

    @classmethod
    def of(
        cls, rankings: Sequence[Sequence[dict[str, Any]]], sizes: Sequence[int], device: torch.device
    ) -> "Pairs":
        """`rankings[i]` are the pairs of a ranking of `sizes[i]` completions (columns of data.preferences)."""
        offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        flat = [
            (p["winner"] + o, p["loser"] + o, p)
            for o, pairs in zip(offsets, rankings, strict=True)
            for p in pairs
        ]
        return cls(
            torch.tensor([w for w, _, _ in flat], dtype=torch.long, device=device),
            torch.tensor([l for _, l, _ in flat], dtype=torch.long, device=device),
            torch.tensor([p["tie"] for _, _, p in flat], dtype=torch.bool, device=device),
            torch.tensor([p["weight"] for _, _, p in flat], dtype=torch.float32, device=device),
            torch.tensor(
                [math.nan if p.get("strength") is None else p["strength"] for _, _, p in flat],
                dtype=torch.float32,
                device=device,
            ),
            torch.tensor([p.get("flip", 0.0) for _, _, p in flat], dtype=torch.float32, device=device),
        )


class Judge(NamedTuple):
    """What says after so many steps how good the weights are; higher is better."""

    every: int
    score: Callable[[], float]


def starting_point(project: Project, base: str | None) -> tuple[str, tuple[str, ...]]:
    """(reference of the model to start from, run ids that are its parents)."""
    latest = project.latest("sft")
    ref = base or (latest.id if latest else project.base)
    return ref, (ref,) if any(run.id == ref for run in project.runs()) else ()


class Rankings(NamedTuple):
    """What is learned from: rows of data.preferences, the runs that brought them, the view that made them."""

    table: pa.Table
    brought_by: tuple[str, ...]
    view: View | None

    def recorded(self, config: dict[str, Any]) -> dict[str, Any]:
        """A run's settings with the whole definition of the view in place of its name: it may be changed later."""
        return config if self.view is None else {**config, "view": self.view.record()}

    def freeze(self, active: ActiveRun) -> None:
        """Keep the rows with the run, and the view's weights of annotators where it has some; says which view."""
        active.freeze("train", self.table)
        if self.view is not None:
            print(
                f"{active.id} takes the view '{self.view.name}': {', '.join(self.view.definition.in_words())}"
            )
        if self.view is not None and self.view.weights is not None:
            weights = sorted(self.view.weights.items())
            columns = {
                "annotator": [who for who, _ in weights],
                "weight": [float(value) for _, value in weights],
            }
            schema = pa.schema([("annotator", pa.string()), ("weight", pa.float64())])
            active.freeze("view_weights", pa.table(columns, schema))


class Training(NamedTuple):
    """A run of reward training or DPO that has its rankings."""

    active: ActiveRun
    config: Any  # RewardConfig or DpoConfig; of a resumed run its own
    taken: Rankings
    base: str  # reference of the model to start from


@contextmanager
def training(
    project: Project, config: RewardConfig | DpoConfig, stage: str, split_by: str | None = None
) -> Iterator[Training]:
    """A new run with its rankings frozen; or, with `config.resume`, that run with its own rankings and settings."""
    if config.resume is not None:
        with project.resume(config.resume, stage) as active:
            yield _resumed(project, config, active)
        return
    ref, parents = starting_point(project, config.base)
    bad = isinstance(config, RewardConfig) and config.all_bad == "below"
    taken = read_rankings(project, config.annotators, config.source, split_by, config.limit, config.view, bad)
    settings = taken.recorded({**as_dict(config), "base": ref})
    with project.start(stage, settings, (*parents, *taken.brought_by), config.seed) as active:
        taken.freeze(active)
        yield Training(active, config, taken, ref)


def _resumed(project: Project, config: RewardConfig | DpoConfig, active: ActiveRun) -> Training:
    """What a stopped run had: the rankings in its folder, the settings in its record. Only where it computes is new."""
    file = active.path / "data" / "train.parquet"
    if not file.exists():
        raise UserError(f"{active.id} was stopped before it had its rankings: begin anew")
    settings = dict(active.record.config)
    view = settings["view"]
    if view is not None:
        known = {name: value for name, value in view.items() if name not in ("name", "saved_at")}
        settings["view"] = view["name"]
        view = View(view["name"], training_views.Definition.of(known))
    own = of_run(settings, config, active.id)
    print(f"{active.id} goes on")
    return Training(active, own, Rankings(pq.read_table(file), (), view), str(settings["base"]))


def read_rankings(
    project: Project,
    annotators: Annotators,
    source: str | None,
    split_by: str | None,
    limit: int | None,
    view: str | None = None,
    all_bad: bool = False,
) -> Rankings:
    """The rankings to learn from, at most `limit`; `view` names a saved view, `all_bad` adds votes that find all answers
    bad (not to a view, which says itself what counts)."""
    with project.store() as store:
        taken = None if view is None else training_views.view(store, view)
        table = rankings(store, annotators, source, split_by, taken, all_bad).slice(0, limit)
        known = [row["source"] for row in store.rows("SELECT DISTINCT source FROM prompt ORDER BY source")]
        brought_by = origins(store, table)
    if not any(pc.list_value_length(table["pairs"]).to_pylist()):
        whose = "" if annotators == "all" else f" by {annotators} annotators"
        where = "" if source is None else f" on prompts from '{source}' (sources here: {', '.join(known)})"
        if view is not None:
            raise UserError(
                f"the view '{view}' keeps no votes{whose}{where} to learn from: `palate view {view}` shows what it "
                "leaves out"
            )
        raise UserError(f"there are no votes{whose}{where} to learn from: rank some with `palate label`")
    return Rankings(table, brought_by, taken)


def encode(rows: Sequence[dict[str, Any]], encoder: Encoder, max_length: int) -> list[EncodedTree]:
    """One tree per ranking; prints what was cut to `max_length`."""
    trees = [
        encoder.tree(json.loads(row["messages"]), row["completions"], row["finish_reasons"], max_length)
        for row in rows
    ]
    cut = cut_message(
        sum(tree.cut_prompt > 0 for tree in trees),
        sum(tree.cut_completions for tree in trees),
        len(rows),
        max_length,
    )
    if cut:
        print(f"  {cut}")
    return trees


def batches(rows: int, batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Row indices of each optimiser step: a new order in each epoch, the last epoch possibly in part."""
    order = random.Random(seed)
    per_epoch = math.ceil(rows / batch_size)
    steps: list[list[int]] = []
    while len(steps) < max(1, round(epochs * per_epoch)):
        shuffled = order.sample(range(rows), rows)
        steps += [shuffled[at : at + batch_size] for at in range(0, rows, batch_size)]
    return steps[: max(1, round(epochs * per_epoch))]


def token_budget(config: Any, hardware: Hardware) -> int:
    """Tokens of a micro-batch, so that activations fit: measured on Llama with LoRA, a token takes 100 D bytes a
    layer in float32 and 70 D in bfloat16. More than 4,096 tokens at once save no time on a CPU.
    """
    text = config.get_text_config()
    token = (100 if hardware.dtype == torch.float32 else 70) * text.hidden_size * text.num_hidden_layers
    if hardware.device.type == "cuda":
        return int(min(16_384, max(512, 0.4 * torch.cuda.mem_get_info(hardware.device)[0] / token)))
    return int(min(4_096, max(512, CPU_ACTIVATIONS / token)))


def fit(
    label: str,
    model: nn.Module,
    trees: Sequence[EncodedTree],
    weights: Sequence[float],
    steps: Sequence[Sequence[int]],
    micro_loss: MicroLoss,
    learning_rate: float,
    budget: int,
    log: Callable[..., None],
    checkpoints: Checkpoints | None = None,
    judge: Judge | None = None,
) -> list[Stats]:
    """Train what requires gradients in `model`; returns what was logged at each step.

    `micro_loss(rows)` gives the weighted sum of the losses of these rows and weighted sums to be logged;
    `weights[row]` is the weight that a row adds. The rate rises over the first tenth and falls as a cosine.
    With `checkpoints` it goes on where the last one was written. With `judge` it ends after an epoch that does worse
    than the best one, whose weights it keeps.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = list(named.values())
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0, fused=True)
    state = _start(checkpoints, named, optimizer)
    bar = tqdm(
        total=len(steps), desc=label, unit="step", initial=state.step, disable=None if team().first else True,
        file=sys.stderr, leave=False,
    )  # fmt: skip
    processes = team()
    with disable_input_dtype_casting(model):  # autocast casts; peft would cast up and autocast down again
        while state.step < len(steps) and not state.ended:
            step = state.step
            rows = steps[step]
            total = sum(weights[row] for row in rows)
            sums: Stats = {"loss": 0.0}
            own = processes.share(rows)
            for group in micro_batches([trees[row] for row in own], budget):
                loss, stats = micro_loss([own[i] for i in group])
                torch.autograd.backward(loss / total)
                for name, value in {"loss": loss.item(), **stats}.items():
                    sums[name] = sums.get(name, 0.0) + value
            processes.add_up(parameters)
            sums = processes.sums(sums)
            norm = float(nn.utils.clip_grad_norm_(parameters, CLIP))
            logged = {name: value / total for name, value in sums.items()}
            check_finite(logged["loss"] + norm, step)
            rate = learning_rate * _rate(step, len(steps))
            for group_of in optimizer.param_groups:
                group_of["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            logged |= {"grad_norm": norm, "learning_rate": rate}
            state.history.append(logged)
            state.step = step + 1
            if judge is not None and (state.step % judge.every == 0 or state.step == len(steps)):
                logged["held_back"] = _judge(judge, state, named)
            state.ended |= state.step == len(steps)
            log(step, **logged)
            bar.update()
            bar.set_postfix(loss=f"{logged['loss']:.3f}")
            if checkpoints is not None and (checkpoints.due() or state.ended):
                state.weights, state.optimizer = _detached(named), optimizer.state_dict()
                checkpoints.save(state)
    bar.close()
    if state.best is not None:
        _put(named, state.best.weights)
    return state.history


def _judge(judge: Judge, state: State, named: Mapping[str, nn.Parameter]) -> float:
    """Score the weights as they are; keep them if they are the best so far, else end."""
    score = judge.score()
    if state.best is None or score > state.best.score:
        state.best = Best(score, state.step, {name: one.clone() for name, one in _detached(named).items()})
    else:
        state.ended = True
    return score


def _start(
    checkpoints: Checkpoints | None, named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> State:
    """The last checkpoint, put in place; a new state where there is none."""
    state = team().same(checkpoints.load() if checkpoints is not None else None)
    if state is None:
        return State(0, {}, {})
    if state.weights.keys() != named.keys():
        raise UserError(
            "the checkpoint is of other weights than this run trains: its settings were changed; begin anew"
        )
    _put(named, state.weights)
    optimizer.load_state_dict(state.optimizer)
    return state


@torch.no_grad()
def _put(named: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    for name, parameter in named.items():
        parameter.copy_(weights[name])


def _detached(named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in named.items()}


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a tenth."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
