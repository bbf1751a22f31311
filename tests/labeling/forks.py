"""Servers that start in less than a second: a process that has imported everything forks, and the child runs `palate`.

Importing Gradio takes most of a start of `palate label` (three to nine seconds on a busy machine). `Forks` starts
one process for the whole test session; it imports what the command imports, has a single Python thread, no event
loop and no database, and forks on request. A child gets the arguments, working directory, umask and the three
streams of the request and runs `palate.cli.main`, which is all that `python -m palate` does:

    with Forks(ENV) as forks:
        process = forks.palate(["label", "--project", "somewhere"])
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0

What a child shares with its siblings and a command does not: the environment of `Forks`, the seed of `hash`, and a
command line in /proc that is not its own. A test that is about one of these, about imports or about the start itself
starts the command: `palate`, or the fixture `launch`.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from typing import IO, Self

# what `palate label` imports once it has read its flags; the last four are uvicorn's choice for this machine
IMPORTED = (
    "palate.labeling.server",
    "palate.project",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)


def palate(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """The command as its user starts it, in an environment."""
    command = [sys.executable, "-m", "palate", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


class Forked:
    """A child of the forking process, used like a `subprocess.Popen` with a pipe for what it prints."""

    def __init__(self, arguments: list[str], stdout: IO[str], status: IO[str]) -> None:
        self.args, self.stdout, self._status = arguments, stdout, status
        self.pid = int(status.readline())
        self.returncode: int | None = None

    def __repr__(self) -> str:
        return f"<forked {self.args}, process {self.pid}, returned {self.returncode}>"

    def poll(self) -> int | None:
        """The exit status once it has ended, the negative number of the signal when one ended it."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, awaited."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            said = self._status.readline()
            assert said, f"the forking process is gone, and with it the exit status of {self!r}"
            self._status.close()
            self.returncode = int(said)
        return self.returncode

    def send_signal(self, sign: int) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sign)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks. Closing it kills what still runs."""

    def __init__(self, env: dict[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=env, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        assert self._control.recv(1) == b".", f"the forking process did not start: {self._process.wait()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._process.wait()

    def palate(self, arguments: list[str], constants: dict[str, float] | None = None) -> Forked:
        """`palate` with these arguments; the constants, {"palate.data.database.WAL_BYTES": 1}, are set before."""
        mask = os.umask(0o077)
        os.umask(mask)
        request = {"arguments": arguments, "cwd": os.getcwd(), "umask": mask, "constants": constants or {}}
        (out, stdout), (told, status) = os.pipe(), os.pipe()
        socket.send_fds(self._control, [json.dumps(request).encode()], [0, stdout, 2, status])
        os.close(stdout)
        os.close(status)
        return Forked(arguments, open(out), open(told))


class Forking:
    """The other side of `Forks`, in a process of its own."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        # Ctrl-C is for pytest and the children
        self._interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._children: dict[int, int] = {}  # process: where its end is told
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)

    def next_child(self) -> list[str]:
        """Fork for every request until the session is over; returns in each child, with its arguments."""
        while True:
            ready = select.select([self._control, self._woken], [], [])[0]
            if self._woken in ready:
                self._woken.recv(4096)
                self._reap(os.WNOHANG)
            if self._control in ready:
                message, streams, _, _ = socket.recv_fds(self._control, 2**16, 4)
                if not message:
                    self._close()
                *standard, told = streams
                with warnings.catch_warnings():  # libraries' own threads, which they stop around a fork
                    warnings.simplefilter("ignore", DeprecationWarning)
                    pid = os.fork()
                if pid == 0:
                    self._leave(standard, told)
                    return _become(**json.loads(message))
                for stream in standard:
                    os.close(stream)
                self._children[pid] = told
                _tell(told, pid)

    def _reap(self, options: int) -> None:
        for pid, told in list(self._children.items()):
            ended, status = os.waitpid(pid, options)
            if ended:
                _tell(told, os.waitstatus_to_exitcode(status))
                os.close(told)
                del self._children[pid]

    def _close(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        self._reap(0)
        os._exit(0)

    def _leave(self, standard: list[int], told: int) -> None:
        """In a child: signals as in any process, and no file but the standard streams."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, self._interrupt)
        for number, stream in enumerate(standard):
            os.dup2(stream, number)
        for stream in (*standard, told, *self._children.values()):
            os.close(stream)
        for used in (self._control, self._woken, self._wake):
            used.close()


def _tell(told: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the test did not wait for it
        os.write(told, f"{number}\n".encode())


def _become(arguments: list[str], cwd: str, umask: int, constants: dict[str, float]) -> list[str]:
    os.chdir(cwd)
    os.umask(umask)
    sys.path.insert(0, cwd)  # as `python -m` has it
    sys.argv[1:] = arguments
    for path, value in constants.items():
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
        setattr(importlib.import_module(module), name, value)
    return arguments


def _main() -> None:
    del sys.path[0]  # the folder of this file
    from palate import cli, environment
    from palate.config import LabelConfig

    environment.prepare()
    cli.parse(LabelConfig, "label", ["--project", os.devnull])  # for what tyro imports meanwhile
    for module in IMPORTED:
        importlib.import_module(module)
    assert threading.active_count() == 1, threading.enumerate()
    gc.freeze()  # a child that looked for garbage among modules would copy them all
    control = socket.socket(fileno=int(sys.argv[1]))
    forking = Forking(control)
    control.send(b".")
    cli.main(forking.next_child())


if __name__ == "__main__":
    _main()
