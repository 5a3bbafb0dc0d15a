"""Where points are measured beyond this process: local worker processes, or the workers of a Dask cluster.

Both are executors in the sense of `concurrent.futures`, as is anything else that a sweep is handed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import jax
from tqdm import tqdm

from bayesnet.sweeping.scratch import Scratch
from theory import arguments

PATIENCE = 10.0  # seconds for a process to end that has nothing left to do
SCHEMES = ("tcp", "tls", "ws", "wss", "ucx")  # that Dask listens at
ATTEMPTS = 3  # how often a call may take its worker process down before it counts as failed; Dask's own number


CANNOT_START = (
    "a worker process ended before it took a call; it begins by running the main program again, which must be a file "
    "that uses LocalProcesses under if __name__ == '__main__':"
)


class WorkerDied(Exception):
    """A call took its worker process down, and did so again on every attempt."""


class WorkersCannotStart(BrokenExecutor):
    """Worker processes end before they take a call."""


class LocalProcesses(Executor):
    """Worker processes on this machine, each with its share of the cores, all with one cache of compiled programs.

    The cache is this process's own where it has one (``JAX_COMPILATION_CACHE_DIR``), else it ends with the processes.
    Processes are spawned, not forked: JAX does not survive a fork. A spawned process begins by running the main program
    again, so that must be a file that uses `LocalProcesses` under ``if __name__ == "__main__":``. A process that dies
    (killed, out of memory) is replaced and its call made again, up to 3 times; other calls do not notice. All end with
    this process, even where it is killed.

    Args:
        jobs: the number of processes.
        cores: ids of the cores to share out; by default all that this process may use. With fewer cores than jobs, jobs
            share a core. Operating systems that cannot hold a process to a core let each use all.

    Raises:
        ValueError: if ``jobs`` is no positive integer or ``cores`` is empty.
        WorkersCannotStart: from the calls, if the main program is no such file.
    """

    def __init__(self, jobs: int, cores: Sequence[int] | None = None):
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # A worker that runs the main program again and comes back here: it ends, and its parent says why.
            raise SystemExit(1)
        self._jobs = arguments.integer("jobs", jobs)
        cores = _own_cores() if cores is None else list(cores)
        if not cores:
            raise ValueError("cores is empty; it must name at least one core")
        self._shares: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
        for job in range(jobs):
            self._shares.put(
                cores[job * len(cores) // jobs : (job + 1) * len(cores) // jobs] or [cores[job % len(cores)]]
            )
        self._scratch = Scratch("bayesnet-compiled-")
        self._compiled = jax.config.values["jax_compilation_cache_dir"] or self._scratch.name
        self._mine = threading.local()
        self._workers: set[_Worker] = set()
        self._stopping, self._cannot_start = threading.Event(), threading.Event()
        # A thread for each process hands it one call after the other.
        self._threads = ThreadPoolExecutor(jobs, "bayesnet-worker", initializer=self._claim_cores)

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Call ``function`` in one of the processes; it, its arguments and its result must pickle."""
        return self._threads.submit(self._call, function, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes, by default after all calls have been answered."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._end_workers(PATIENCE)

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is not None:
            # After an error, an interrupt above all, nobody waits for the calls under way.
            self._stopping.set()
            self.shutdown(wait=False, cancel_futures=True)
            self._end_workers()
        self.shutdown()

    def _end_workers(self, patience: float = 0.0) -> None:
        for worker in list(self._workers):
            worker.end(patience)
        self._scratch.cleanup()

    def _claim_cores(self) -> None:
        share = self._shares.get()
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, share)  # of this thread, and of the processes that it starts

    def _call(self, function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        exit_code = None
        for _ in range(ATTEMPTS):
            if self._stopping.is_set():
                break
            worker = self._worker()
            if self._stopping.is_set():  # while the process was starting
                break
            try:
                succeeded, value = worker.ask(function, args, kwargs)
            except (EOFError, ConnectionError):
                exit_code = worker.end()
                self._workers.discard(worker)
                self._mine.worker = None
                continue
            if succeeded:
                return value
            raise value
        raise WorkerDied(f"the worker process died on each of {ATTEMPTS} attempts (exit code {exit_code})")

    def _worker(self) -> _Worker:
        worker = getattr(self._mine, "worker", None)
        if worker is None:
            if self._cannot_start.is_set():
                raise WorkersCannotStart(CANNOT_START)
            try:
                worker = self._mine.worker = _Worker(self._compiled)
            except WorkersCannotStart:
                self._cannot_start.set()
                raise
            self._workers.add(worker)
        return worker


class _Worker:
    """A spawned process that answers one call at a time over a pipe."""

    def __init__(self, compiled: str):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, compiled), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is noticed here
        try:
            self._pipe.recv()  # that it is ready
        except (EOFError, ConnectionError):
            self.end()
            raise WorkersCannotStart(CANNOT_START) from None

    def ask(self, *call: Any) -> tuple[bool, Any]:
        """(True, result) or (False, exception). EOFError or ConnectionError where the process has died."""
        self._pipe.send(call)
        return self._pipe.recv()

    def end(self, patience: float = 0.0) -> int | None:
        """Let it end by itself if it does so within ``patience`` seconds, else kill it; returns its exit code."""
        self._pipe.close()
        self._process.join(patience)
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _serve(pipe: Any, compiled: str) -> None:
    """Answer calls until the other end closes. Runs in the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # This process is ours alone, so it may be set up globally. A lock of tqdm's own would outlive a kill.
    tqdm.set_lock(threading.RLock())
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    with contextlib.suppress(EOFError, ConnectionError):
        pipe.send("ready")
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes()))


def _answer(call: bytes) -> bytes:
    """A pickled (function, args, kwargs) -> pickled (True, result) or (False, exception)."""
    try:
        function, args, kwargs = pickle.loads(call)
        return pickle.dumps((True, function(*args, **kwargs)))
    except Exception as error:
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, RuntimeError(repr(error))))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _own_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def connect_dask(address: str) -> Iterator[Executor]:
    """An executor on the workers of a running Dask cluster.

    Workers need the same version of bayesnet, and a user's activation must be importable there, or come from the script
    or notebook itself. A worker that is lost is made up for by the others; a call that takes three workers down fails.

    Args:
        address: of the scheduler, "tcp://host:8786" for instance.

    Raises:
        ValueError: if ``address`` has another form, or Dask is not installed.
        OSError: if no scheduler answers at the address.
    """
    _check_address(address)
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("dask is not installed; pip install 'bayesnet[dask]'") from None
    with Client(address, set_as_default=False) as client:
        yield client.get_executor(pure=False)


def _check_address(address: Any) -> None:
    """Dask itself would look for a scheduler at any address for minutes."""
    try:
        parts = urlsplit(address)
        found = parts.scheme == "inproc" or (parts.scheme in SCHEMES and parts.hostname and parts.port)
    except (ValueError, TypeError, AttributeError):
        found = False
    if not isinstance(address, str) or not found:
        raise ValueError(f"address of the Dask scheduler is {address!r}; it must be tcp://HOST:PORT")
