"""Chunks staged in several processes: a big import uses all cores.

Workers are plain child processes that read pickled work from their standard input: unlike `multiprocessing`
they neither fork a process that has threads nor run the caller's script again. They end when the import does.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO

from palate.config import UserError
from palate.data.readers import Payload
from palate.data.staging import Outcome, Plan, stage

Work = tuple[Plan, int, list[tuple[int, Payload]]]
MOST = 8
_LOOP = "from palate.data.workers import serve; serve()"


def cores() -> int:
    """How many cores this process may use, at most MOST."""
    mine = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(MOST, mine)


def stage_all(work: Iterable[Work], workers: int) -> Iterator[Outcome]:
    """What became of each chunk, in order; `workers` of them at a time, or in this process when it is 1."""
    if workers == 1:
        for piece in work:
            yield stage(*piece)
        return
    free: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
    started = [_start() for _ in range(workers)]
    for process in started:
        free.put(process)

    def on_a_free_one(piece: Work) -> Outcome:
        process = free.get()
        try:
            return _ask(process, piece)
        finally:
            free.put(process)

    try:
        with ThreadPoolExecutor(workers) as threads:
            under_way: deque[Future[Outcome]] = deque()
            for piece in work:
                under_way.append(threads.submit(on_a_free_one, piece))
                if len(under_way) > 2 * workers:  # enough to keep all busy, little to hold in memory
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", _LOOP]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def _ask(process: subprocess.Popen[bytes], piece: Work) -> Outcome:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(piece, process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        answer = pickle.load(process.stdout)
    except (EOFError, BrokenPipeError) as error:
        raise UserError(
            "a worker process of the import was ended (by hand, or for memory): try again"
        ) from error
    if isinstance(answer, OSError):
        raise answer
    assert isinstance(answer, Outcome)
    return answer


def serve() -> None:
    """The worker's side: stage what comes in until the input ends."""
    source: IO[bytes] = sys.stdin.buffer
    target: IO[bytes] = sys.stdout.buffer
    try:
        while True:
            piece: Work = pickle.load(source)
            try:
                answer: Outcome | OSError = stage(*piece)
            except OSError as error:  # a full disk is told by the parent
                answer = error
            pickle.dump(answer, target, pickle.HIGHEST_PROTOCOL)
            target.flush()
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
