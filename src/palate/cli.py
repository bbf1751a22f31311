"""The `palate` command: parse, open the project, call one function, print what it made.

Heavy imports stand inside the commands, so that every `--help` answers at once.
"""

import sys
from collections.abc import Callable
from typing import Any

from palate import config as settings
from palate.config import UserError

Command = Callable[[Any], None]


def _init(config: settings.InitConfig) -> None:
    from palate.project import Project

    project = Project.create(config.folder, config.base, config.name)
    print(f"made project '{project.name}' in {project.folder} on the base model {project.base}")
    print("next: palate import FILE (prompts, demonstrations, rankings), or palate sft")


COMMANDS: dict[str, tuple[type, Command]] = {
    "init": (settings.InitConfig, _init),
}


def main(argv: list[str] | None = None) -> None:
    """Entry point: exit status 0 when it worked, 1 on an error told in one line, 2 on bad flags."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"palate: there is no command '{name}'; `palate --help` lists them", file=sys.stderr)
        raise SystemExit(2)
    kind, command = COMMANDS[name]
    try:
        command(parse(kind, name, rest))
    except UserError as error:
        print(f"palate {name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print(f"\npalate {name}: stopped", file=sys.stderr)
        raise SystemExit(130) from None


def parse(kind: type, name: str, arguments: list[str]) -> Any:
    """Flags over the recipe's section over the project's section over the defaults."""
    import tyro

    return tyro.cli(kind, prog=f"palate {name}", args=arguments)


def _overview() -> str:
    lines = ["usage: palate COMMAND [OPTIONS]", ""]
    for name, (kind, _) in COMMANDS.items():
        lines.append(f"  {name:<10}{(kind.__doc__ or '').splitlines()[0]}")
    return "\n".join(lines)
