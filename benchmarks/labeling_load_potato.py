"""The peer of `labeling_load.py`: Potato, in an environment of its own, set up for pairs of answers.

What its page sends when an annotator has chosen and presses Next was read off a browser: the choice
(`/updateinstance`), the move (`POST /annotate`, with the header that asks for a short answer), and the page with the
next item (`GET /annotate`), each waiting for the one before. About a dozen more requests per item (tracking, colours,
spans, highlights) are left out, which favours it.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from labeling_load_client import Connection, Failed

VERSION = "2.12"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "palate-benchmarks"
_ITEM = re.compile(rb'<input id="instance_id"[^>]* value="([^"]+)"')
FORM = "application/x-www-form-urlencoded"
MOVE = "X-Potato-Navigation: 1\r\n"


def installed() -> Path:
    """The environment's `potato` command, made at the first call (about 0.5 GB, no torch)."""
    folder = CACHE / f"potato-{VERSION}"
    command = folder / ("Scripts/potato.exe" if sys.platform == "win32" else "bin/potato")
    if not (folder / "complete").exists():
        print(f"  installing potato-annotation {VERSION} into {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(command.with_name("pip")), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"potato-annotation=={VERSION}"], check=True, stdout=sys.stderr)
        (folder / "complete").touch()
    return command


def make_project(folder: Path, items: Sequence[tuple[str, str, str]], overlap: int) -> Path:
    """A task with one pairwise question; returns its configuration file."""
    (folder / "data").mkdir(parents=True)
    with (folder / "data" / "items.jsonl").open("w") as file:
        for i, (prompt, one, other) in enumerate(items):
            file.write(json.dumps({"id": f"item{i}", "text": prompt, "answers": [one, other]}) + "\n")
    config = {
        "annotation_task_name": "pairs",
        "task_dir": ".",
        "host": "127.0.0.1",
        "output_annotation_dir": "output",
        "data_files": ["data/items.jsonl"],
        "item_properties": {"id_key": "id", "text_key": "text"},
        "user_config": {"allow_all_users": True, "users": []},
        "num_annotators_per_item": overlap,
        "assignment_strategy": "fixed_order",
        "annotation_schemes": [
            {
                "annotation_type": "pairwise",
                "name": "preference",
                "description": "Which answer serves the prompt better?",
                "mode": "binary",
                "items_key": "answers",
                "allow_tie": True,
            }
        ],
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@contextmanager
def running(config: Path) -> Iterator[str]:
    """`potato start` on a free port, as its documentation starts it; yields the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (config.parent / "server.log").open("w") as log:
        command = [str(installed()), "start", config.name, "--port", str(port)]
        process = subprocess.Popen(command, cwd=config.parent, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, config.parent / "server.log")
            yield url
        finally:
            process.terminate()
            process.wait(30)


async def _log_in(url: str, number: int) -> Connection:
    person = Connection(url)
    form = f"email=annotator{number}&pass=a-long-password-{number}".encode()
    status, _ = await person.request("POST", "/register", form, FORM)
    if status not in (200, 302):
        raise Failed(f"registering annotator{number}: status {status}")
    await _show(person)
    return person


async def vote(person: Connection) -> None:
    """Choose A and press Next; the next page has arrived when this returns."""
    item = person.state["item"]
    choice = {
        "instance_id": item, "annotations": {"preference:selection": "A"}, "cleared_schemas": [],
        "span_annotations": [], "client_timestamp": "2026-11-21T04:13:53.724Z", "response_time_seconds": 3.029,
    }  # fmt: skip
    status, body = await person.request("POST", "/updateinstance", json.dumps(choice).encode())
    if status != 200 or b'"error"' in body:
        raise Failed(f"/updateinstance: {status} {body[:200]!r}")
    move = json.dumps({"action": "next_instance", "instance_id": item}).encode()
    status, body = await person.request("POST", "/annotate", move, header=MOVE)
    if status != 200:
        raise Failed(f"POST /annotate: {status} {body[:200]!r}")
    await _show(person)
    if person.state["item"] == item:
        raise Failed(f"{item} is still on screen after Next")


async def _show(person: Connection) -> None:
    status, page = await person.request("GET", "/annotate")
    found = _ITEM.search(page)
    if status != 200 or found is None:
        raise Failed(f"GET /annotate: status {status}, {len(page)} bytes, no item in it")
    person.state["item"] = found.group(1).decode()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit(f"Potato did not start:\n{log.read_text()[-3000:]}")


async def log_in_all(url: str, project: Path, n: int) -> list[Connection]:
    """`n` annotators, one after the other; Potato keeps their accounts, so nothing of the project is needed."""
    return [await _log_in(url, number) for number in range(n)]
