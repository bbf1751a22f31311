"""Where a running server is, and what opens it: `server.json` on this machine, a token for another one.

While `palate label` runs it owns the database; `server.json` in the project folder, readable by its owner alone,
says under which address, with a token that ends with that process. A file that a killed server left behind is
known by its process being gone.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from palate.config import UserError

SERVER, TOKEN = "server.json", "token"  # files in a project folder


@dataclass(frozen=True)
class Address:
    """A server of this machine."""

    url: str
    token: str
    pid: int


def publish(folder: Path, url: str, token: str) -> Address:
    """Say that this process serves the project."""
    address = Address(url, token, os.getpid())
    part = folder / f".{SERVER}.{address.pid}"
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(asdict(address), file)
    part.replace(folder / SERVER)
    return address


def withdraw(folder: Path) -> None:
    """This process serves the project no more; what another one has said since stays."""
    address = _read(folder)
    if address is not None and address.pid == os.getpid():
        with suppress(OSError):
            (folder / SERVER).unlink()


def running(folder: Path) -> Address | None:
    """The server of this project on this machine, if its process lives."""
    address = _read(folder)
    return address if address is not None and alive(address.pid) else None


def token_for(url: str, folder: Path) -> str:
    """The token for a server elsewhere: PALATE_TOKEN, else the file `token` of the project folder."""
    if value := os.environ.get("PALATE_TOKEN", "").strip():
        return value
    path = folder / TOKEN
    try:
        value = path.read_text(encoding="utf-8").strip()
        others = os.name == "posix" and path.stat().st_mode & 0o077
    except FileNotFoundError:
        value, others = "", 0
    if others:
        raise UserError(f"{path} can be read by others on this machine: chmod 600 {path}")
    if not value:
        raise UserError(
            f"there is no token for {url}: a lead makes one at its /account; put it into PALATE_TOKEN or, "
            f"readable by you alone, into {path}"
        )
    return value


def _read(folder: Path) -> Address | None:
    try:
        found = json.loads((folder / SERVER).read_text(encoding="utf-8"))
        return Address(str(found["url"]), str(found["token"]), int(found["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def alive(pid: int | None) -> bool:
    """Whether a process of this number runs on this machine."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
