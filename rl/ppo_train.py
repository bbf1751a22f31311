"""`palate ppo`: which prompts, rewards and models; the run around the loop of ppo.py, and what is said of it.

palate ppo                  or   run(Project.open(folder), PpoConfig(folder))
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from palate.checkpoints import Checkpoints
from palate.config import PpoConfig, UserError
from palate.data.records import Run
from palate.doctor import check_frozen, check_moved, check_template, weights_hash
from palate.hardware import probe
from palate.models import Loaded, is_run, load, save_adapter, save_model
from palate.parallel import team
from palate.project import Project
from palate.rl import prompted
from palate.rl.best_of_n import Frontier, Standing, frontier
from palate.rl.guards import Guard
from palate.rl.ppo import Ppo
from palate.rl.prompted import SNAPSHOTS, Prompts
from palate.rl.rewards import Part, open_rewards, parse
from palate.rl.roles import POLICY, REFERENCE, VALUE, Roles
from palate.rl.rollouts import see
from palate.runs import ActiveRun

# The rate of the value's adapter, in the policy's. It was found when the value still started from the reward's head, far off in the
# middle of an answer: at the policy's own rate the policy waited for it for a dozen rollouts.
VALUE_TIMES = 5.0


class Task(NamedTuple):
    """What all processes of a run need to know."""

    config: PpoConfig  # with base and reward
    prompts: Prompts
    snapshots: Path | None  # of the policy along the way; None: another process keeps them

    @property
    def ref(self) -> str:
        """The model to start from."""
        assert self.config.base is not None
        return self.config.base

    @property
    def parts(self) -> list[Part]:
        """What judges."""
        return [parse(name) for name in self.config.reward]


def run(project: Project, asked: PpoConfig) -> Run:
    """Train a policy by what its reward says of what it writes; returns the finished run."""
    _check(asked)
    with prompted.started(project, asked, "ppo") as (active, config, every):
        hardware = probe(config.device, config.dtype)
        loaded = load(project, config.base, hardware)
        check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        active.update(template_hash=loaded.encoder.template_hash)
        prompts = prompted.fitting(every, loaded, config.max_new_tokens)
        task = Task(config, prompts, active.path / SNAPSHOTS)
        print(
            f"{active.id}: PPO on {task.ref}, {len(prompts)} prompts, judged by {prompted.judged_by(task.parts)}; "
            f"{config.steps} rollouts of {config.batch_size} answers ({hardware})"
        )
        team().tell(task)
        ppo = prepare(project, task, loaded)
        frozen, before = weights_hash(ppo.roles.frozen().items()), _trained(ppo.roles)
        ppo.optimise(active.log, Checkpoints(active))
        check_moved(before, _trained(ppo.roles))
        check_frozen(frozen, weights_hash(ppo.roles.frozen().items()))  # [20]
        _save(active, ppo, task.ref)
        found, where = prompted.held_out(project, config, loaded, prompts)
        prompted.report(active, config, ppo.history, ppo.guard, *against_best_of_n(ppo, found), where)
    return active.record


def follow(project: Project) -> None:
    """Help to train what the first process tells (palate.parallel)."""
    task: Task = team().hear()
    loaded = load(project, task.ref, probe(task.config.device, task.config.dtype))
    prepare(project, task._replace(snapshots=None), loaded).optimise(lambda *_, **__: None)


def prepare(project: Project, task: Task, loaded: Loaded) -> Ppo:
    """Roles, rewards and guard for a task."""
    config, parts = task.config, task.parts
    full = config.method == "full"
    on_base = None if full else shares_base(project, parts, task.ref)
    folder = None if on_base is None else _artefact(project, on_base)
    roles = (
        Roles.full(loaded)
        if full
        else Roles.adapters(loaded, config.lora_rank, config.seed, folder, config.value_layers)
    )
    knows = roles.reward is None or roles.reward.uncertainty is not None
    if on_base is not None and config.pessimism and not knows:
        raise UserError(
            f"{on_base} does not know how sure it is (--uncertainty off): train it again, or --pessimism 0"
        )
    rewards = open_rewards(project, parts, loaded.hardware, config.pessimism, on_base)
    rate = config.learning_rate or prompted.default_learning_rate(loaded.weights, config.method)
    rates = {POLICY: rate, VALUE: config.value_learning_rate or (rate if full else VALUE_TIMES * rate)}
    with roles.reference():
        belief = (
            None
            if config.guard == "off"
            else prompted.belief(project, parts, loaded, roles.forwards[REFERENCE])
        )
    return Ppo(
        roles, rewards, task.prompts, config, rates, Guard(config.guard, config.keep_every, task.snapshots, belief)
    )  # fmt: skip


def shares_base(project: Project, parts: Sequence[Part], ref: str) -> str | None:
    """The first reward run among `parts` that is an adapter (or a head) on the policy's own base."""
    for part in parts:
        if is_run(project, part.name):
            base = project.run(part.name).artefact.get("base")
            if base == ref and not (_artefact(project, part.name) / "weights.safetensors").exists():
                return part.name
    return None


def _artefact(project: Project, name: str) -> Path:
    run = project.run(name)
    return Path(run.path) / str(run.artefact.get("path", ""))


def _check(config: PpoConfig) -> None:
    """Settings that can't be, said before anything is made."""
    if config.k < 1 or config.batch_size < 2 or config.batch_size % config.k:
        raise UserError(
            f"--batch-size {config.batch_size} must be a multiple of -k {config.k}, and at least 2"
        )
    if config.batch_size // config.k < config.minibatches or config.minibatches < 1 or config.ppo_epochs < 1:
        raise UserError(
            f"--minibatches {config.minibatches}: a rollout has {config.batch_size // config.k} prompts to divide, and at "
            "least one minibatch and one pass"
        )
    if config.steps < 1 or config.keep_every < 1 or config.max_new_tokens < 1:
        raise UserError("--steps, --keep-every and --max-new-tokens must be at least 1")
    if config.value_warmup >= config.steps:
        raise UserError(
            f"--value-warmup {config.value_warmup} of {config.steps} --steps leaves none to the policy"
        )
    if not 0 < config.value_layers <= 1:
        raise UserError(f"--value-layers is a share, above 0 and up to 1, got {config.value_layers}")
    if config.temperature <= 0:
        raise UserError(f"--temperature must be above 0, got {config.temperature}: PPO learns from chance")
    if not 0 < config.lam <= 1 or not 0 < config.gamma <= 1 or not 0 < config.clip < 1 or config.kl < 0:
        raise UserError("--lam and --gamma take 0 to 1, --clip 0 to 1 (without the ends), --kl 0 or more")
    if config.kl_target is not None and (config.kl_target <= 0 or config.kl <= 0):
        raise UserError("--kl-target needs a target and a first coefficient (--kl) above 0")


def _trained(roles: Roles) -> str:
    return weights_hash(roles.parameters(POLICY).items())


def _save(active: ActiveRun, ppo: Ppo, ref: str) -> None:
    """The policy as a run's artefact, which every other stage can start from."""
    if ppo.roles.shared:
        save_adapter(ppo.roles.policy, active.path / "adapter")
        active.update(artefact={"kind": "adapter", "path": "adapter", "base": ref})
    else:
        save_model(ppo.roles.loaded, active.path / "model")
        active.update(artefact={"kind": "model", "path": "model", "base": ref})
    shutil.rmtree(active.path / SNAPSHOTS, ignore_errors=True)


def against_best_of_n(ppo: Ppo, prompts: Prompts) -> tuple[Standing, Frontier]:
    """The trained policy, and best of n of the start, on the same prompts by the same reward."""
    config, roles, places = ppo.config, ppo.roles, list(range(len(prompts)))
    n = max(1, config.best_of)
    base = see(roles.reference, roles, ppo.rewards, prompts, places, config, n, config.seed + 1)
    own = see(roles.writing, roles, ppo.rewards, prompts, places, config, config.k, config.seed + 2)
    return Standing.of(own.answers, own.rewards(), own.kl()), frontier(base.rewards())
