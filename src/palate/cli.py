"""The `palate` command: parse, open the project, call one function, print what it made.

Heavy imports stand inside the commands, so that every `--help` answers at once.
"""

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import fields
from typing import Any

from palate import config as settings
from palate import environment, launched
from palate.config import UserError

Command = Callable[[Any], None]


def _init(config: settings.InitConfig) -> None:
    from palate.project import Project

    project = Project.create(config.folder, config.base, config.name, config.store)
    print(f"made project '{project.name}' in {project.folder} on the base model {project.base}")
    if project.server is None:
        print("next: palate import FILE (prompts, demonstrations, rankings), then palate sft")
    else:
        print(f"its records are at {project.server}; runs and models stay here")
        print(f"next: a lead's token into PALATE_TOKEN or {project.folder / 'token'}, then palate sft")


def _import(config: settings.ImportConfig) -> None:
    from palate import importing

    importing.run(_project(config), config)


def _sft(config: settings.SftConfig) -> None:
    from palate.sft import train

    _together(config, train.run, train.follow)


def _sample(config: settings.SampleConfig) -> None:
    from palate import sampling
    from palate.project import Project

    project = Project.open(config.project)
    sampling.run(project, config)
    if config.features:
        from palate.reward import features

        features.add_missing(project, config.device, config.dtype)


def _label(config: settings.LabelConfig) -> None:
    from palate.labeling import server

    server.run(_project(config), config)
    sys.stdout.flush()
    os._exit(0)  # all is closed; the interpreter's own end would only list what libraries left behind


def _simulate(config: settings.SimulateConfig) -> None:
    from palate.labeling import simulate

    simulate.run(_project(config), config)


def _reward(config: settings.RewardConfig) -> None:
    from palate.reward import train

    _together(config, train.run, train.follow)


def _project(config: Any) -> Any:
    from palate.project import Project

    return Project.open(config.project)


def _alone(config: Any, run: Callable[[Any, Any], Any]) -> None:
    """Train in one process."""
    from palate import lineage
    from palate.project import Project

    project = Project.open(config.project)
    lineage.write_card(project, run(project, config))


def _together(config: Any, run: Callable[[Any, Any], Any], follow: Callable[[Any], None]) -> None:
    """Train in one process, or in several of which the first keeps the books (palate.parallel)."""
    from palate import lineage
    from palate.parallel import team
    from palate.project import Project

    project = Project.open(config.project)
    if team().first:
        lineage.write_card(project, run(project, config))
    else:
        with redirect_stdout(io.StringIO()):  # the first process speaks for all
            follow(project)
        team().end()


def _reward_features(config: settings.RewardFeaturesConfig) -> None:
    from palate.reward import features

    features.run(_project(config), config)


def _reward_score(config: settings.RewardScoreConfig) -> None:
    from palate.reward import scoring

    scoring.run(_project(config), config)


def _reward_best(config: settings.RewardBestConfig) -> None:
    from palate.reward import best

    best.run(_project(config), config)


def _reward_serve(config: settings.RewardServeConfig) -> None:
    from palate.reward import served

    served.run(_project(config), config)


def _dpo(config: settings.DpoConfig) -> None:
    from palate.rl import dpo

    _together(config, dpo.run, dpo.follow)


def _ppo(config: settings.PpoConfig) -> None:
    from palate.rl import ppo_train

    _together(config, ppo_train.run, ppo_train.follow)


def _rloo(config: settings.RlooConfig) -> None:
    from palate.rl import rloo

    _alone(config, rloo.run)


def _grpo(config: settings.GrpoConfig) -> None:
    from palate.rl import grpo

    _alone(config, grpo.run)


def _kto(config: settings.KtoConfig) -> None:
    from palate.rl import kto

    _alone(config, kto.run)


def _loop(config: settings.LoopConfig) -> None:
    from palate import loop

    loop.run(_project(config), config)


def _eval(config: settings.EvalConfig) -> None:
    from palate.evaluation import evaluate

    evaluate.run(_project(config), config)


def _runs(config: settings.RunsConfig) -> None:
    from palate import lineage

    lineage.run_command(_project(config), config)


def _stats(config: settings.StatsConfig) -> None:
    from palate.labeling import stats

    stats.run(_project(config), config)


def _view(config: settings.ViewConfig) -> None:
    from palate.labeling import viewing

    viewing.run_view(_project(config), config)


def _export(config: settings.ExportConfig) -> None:
    from palate import exporting

    exporting.run_export(_project(config), config)


def _recover(config: settings.RecoverConfig) -> None:
    from palate import safety

    safety.run_recover(_project(config), config)


def _backup(config: settings.BackupConfig) -> None:
    from palate import safety

    safety.run_backup(_project(config), config)


def _restore(config: settings.RestoreConfig) -> None:
    from palate import safety

    safety.run_restore(_project(config), config)


def _demo(config: settings.DemoConfig) -> None:
    from palate import demo

    demo.run(config)


COMMANDS: dict[str, tuple[type, Command]] = {
    "init": (settings.InitConfig, _init),
    "import": (settings.ImportConfig, _import),
    "sft": (settings.SftConfig, _sft),
    "sample": (settings.SampleConfig, _sample),
    "label": (settings.LabelConfig, _label),
    "simulate": (settings.SimulateConfig, _simulate),
    "stats": (settings.StatsConfig, _stats),
    "view": (settings.ViewConfig, _view),
    "reward": (settings.RewardConfig, _reward),
    "reward features": (settings.RewardFeaturesConfig, _reward_features),
    "reward score": (settings.RewardScoreConfig, _reward_score),
    "reward best": (settings.RewardBestConfig, _reward_best),
    "reward serve": (settings.RewardServeConfig, _reward_serve),
    "dpo": (settings.DpoConfig, _dpo),
    "ppo": (settings.PpoConfig, _ppo),
    "rloo": (settings.RlooConfig, _rloo),
    "grpo": (settings.GrpoConfig, _grpo),
    "kto": (settings.KtoConfig, _kto),
    "loop": (settings.LoopConfig, _loop),
    "eval": (settings.EvalConfig, _eval),
    "runs": (settings.RunsConfig, _runs),
    "export": (settings.ExportConfig, _export),
    "backup": (settings.BackupConfig, _backup),
    "restore": (settings.RestoreConfig, _restore),
    "recover": (settings.RecoverConfig, _recover),
    "demo": (settings.DemoConfig, _demo),
}


TOGETHER = ("sft", "reward", "dpo", "ppo")  # what several processes can do together


def main(argv: list[str] | None = None) -> None:
    """Entry point: exit status 0 when it worked, 1 on an error told in one line, 2 on bad flags."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    if arguments[0] == "--version":
        from palate import __version__

        print(f"palate {__version__}")
        return
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name not in COMMANDS:
        print(f"palate: there is no command '{name}'; `palate --help` lists them", file=sys.stderr)
        raise SystemExit(2)
    kind, command = COMMANDS[name]
    environment.prepare()
    try:
        if (launched.processes() > 1 or launched.sharding()) and name not in TOGETHER:
            raise UserError("it runs in one process: start it without accelerate launch or torchrun")
        if launched.sharding() and name != "sft":
            raise UserError(
                f"{launched.sharding()} cuts a model into parts, which only palate sft can work with: here every process "
                "holds a whole base and its adapters, so launch with recipes/accelerate/ddp.yaml"
            )
        command(parse(kind, name, rest))
    except settings.Paused as pause:
        print(pause)
    except UserError as error:
        _fail(name, str(error), 1)
    except BrokenPipeError:  # `palate stats | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:  # a full disk, a folder that can't be written: the message names the file
        _fail(name, str(error), 1)
    except KeyboardInterrupt:
        _fail(name, "stopped", 130)


def parse(kind: type, name: str, arguments: list[str]) -> Any:
    """Flags over the recipe's section over the project's section over the defaults."""
    import tyro

    def read(default: Any = None) -> Any:
        given = {} if default is None else {"default": default}
        return tyro.cli(kind, prog=f"palate {name}", args=arguments, **given)

    config = read()
    if "recipe" not in {field.name for field in fields(kind)}:
        return config
    sections: dict[str, Any] = {}
    for path in (config.project / "palate.yaml", config.recipe):
        if path is not None and (path == config.recipe or path.exists()):
            section = settings.read_yaml(path).get(name) or {}
            if not isinstance(section, dict):
                raise UserError(f"{path}: '{name}' must be a section of settings, it is {section!r}")
            settings.from_mapping(kind, section, f"{path}, section {name}")
            sections |= section
    return read(settings.from_mapping(kind, sections, name)) if sections else config


def _fail(name: str, message: str, status: int) -> None:
    print(f"palate {name}: {message}", file=sys.stderr)
    raise SystemExit(status) from None


def _overview() -> str:
    lines = [
        "usage: palate COMMAND [OPTIONS]",
        "",
        "Turns people's preferences into a better language model.",
        "",
    ]
    for name, (kind, _) in COMMANDS.items():
        lines.append(f"  {name:<17}{(kind.__doc__ or '').splitlines()[0]}")
    lines += ["", "`palate COMMAND --help` explains each setting. A first look: palate demo"]
    return "\n".join(lines)
