"""A forked server is to its test what the command is: the same surroundings, signals, exit statuses and words."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from palate.project import Project
from tests.labeling.conftest import ENV, Server
from tests.labeling.forks import Forked, Forks

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]
Process = subprocess.Popen[str] | Forked


def surroundings(process: Process) -> dict[str, Any]:
    """What Linux tells about a process that could differ: files, group, umask, signals, limits, environment."""
    folder = Path(f"/proc/{process.pid}")
    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
    entries = (folder / "environ").read_text().strip("\0").split("\0")
    files = []
    for file in (folder / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            files.append(Path(os.readlink(file).partition("[")[0]).name)
    return {
        "cwd": os.readlink(folder / "cwd"),
        "files": sorted(files),
        "streams": [os.readlink(folder / "fd" / number).partition("[")[0] for number in "01"],
        "group": (os.getpgid(process.pid), os.getsid(process.pid)),
        "status": {name: status[name] for name in ("Umask", "SigBlk", "SigIgn", "SigCgt", "Uid", "Gid")},
        "limits": (folder / "limits").read_text(),
        "environment": dict(entry.partition("=")[::2] for entry in entries),
    }


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_surroundings(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    projects = [Project.create(tmp_path / name / "project") for name in ("one", "two")]
    fork = serve(projects[0].folder)
    command = serve(projects[1].folder, env={**ENV, "ANOTHER": "environment"})  # no fork has that
    assert isinstance(fork.process, Forked)
    assert isinstance(command.process, subprocess.Popen)
    for _ in range(100):  # a connection that still closes is one file more
        expected, found = surroundings(command.process), surroundings(fork.process)
        assert expected["environment"].pop("ANOTHER") == "environment"
        if found == expected:
            break
        time.sleep(0.1)
    assert found == expected


def test_signals_and_exits(
    project: Project, serve: Serve, forks: Forks, capfd: pytest.CaptureFixture[str]
) -> None:
    """As test_cli.py, test_server.py and test_browser.py find them with the command."""
    for sign, status, said in (
        (signal.SIGTERM, -15, ""),
        (signal.SIGINT, 0, "\nclosed. next:   palate stats, then palate reward\n"),
        (signal.SIGKILL, -9, ""),
    ):
        process = serve(project.folder).process
        assert process.poll() is process.returncode is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        if sign == signal.SIGKILL:
            second = forks.palate(["label", "--project", str(project.folder), "--no-browser"])
            assert second.wait(60) == second.poll() == 1
            assert "open in another process" in capfd.readouterr().err
        process.send_signal(sign)
        assert process.wait(20) == process.poll() == process.returncode == status
        assert process.stdout is not None and process.stdout.read() == said
        process.kill()  # of a process that is gone
    helped, wrong = forks.palate(["label", "--help"]), forks.palate(["label", "--nonsense"])
    assert "--lease-minutes" in helped.stdout.read()
    assert (helped.wait(60), wrong.wait(60)) == (0, 2)
    assert "--nonsense" in capfd.readouterr().err


def test_what_runs_at_the_end_is_killed(project: Project) -> None:
    with Forks(ENV) as forks:
        process = forks.palate(["label", "--project", str(project.folder), "--no-browser", "--port", "0"])
        assert "takes:" in process.stdout.readline()
        process.stdout.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert process.wait() == -9


def test_constants(project: Project, forks: Forks, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["label", "--project", str(project.folder), "--overlap", "0"]
    assert forks.palate(flags, {"palate.labeling.server.PORTS_TRIED": 1}).wait(60) == 1
    assert "--overlap takes 1 to 1000, got 0" in capfd.readouterr().err
    assert forks.palate(flags, {"palate.labeling.server.NO_SUCH": 1}).wait(60) == 1
    assert "NO_SUCH" in capfd.readouterr().err
