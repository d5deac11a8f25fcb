"""Worker processes: how one is started, talks, and can never outlive its coordinator."""

import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import final

import numpy as np
import torch.multiprocessing as mp

from envs.errors import EnvironmentFailure, EnvironmentSetupError
from mgrl_cli.errors import MgrlError, UsageError, WorkerError
from mgrl_cli.fork_server import START_METHOD
from mgrl_cli.lifeline import begin_life
from mgrl_cli.runtime.messages import Order, Report, WorkerFailure
from mgrl_cli.runtime.worker import Worker, WorkerPlan, prepared_torch

WORKER_NAME = "mgrl-worker"
"""How the system calls a worker process, before its number (Linux)."""


@final
class WorkerHandle:
    """The coordinator's end of one worker process."""

    def __init__(self, plan: WorkerPlan) -> None:
        """Start the process. Call from the main thread only: it dies with the calling thread.

        Where it is spawned, hold the stop signals back meanwhile; a forked one begins with them
        blocked anyway, and this may have to wait for the fork server's imports.

        Raises:
            OSError: the system refused.
            EOFError: the fork server died.
        """
        context = mp.get_context(START_METHOD)
        agents = ", ".join(str(spec.agent_id) for spec in plan.specs)
        self.number = plan.number
        self.name = f"worker {plan.number} (agents {agents})"
        self.log = plan.run.logs / f"worker-{plan.number:03d}.log"
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_worker_main,
            args=(plan, theirs, self.log),
            name=f"{WORKER_NAME}-{plan.number}",
            daemon=True,
        )
        self.process.start()
        theirs.close()

    @property
    def sentinel(self) -> int:
        """Becomes ready when the process has ended."""
        return self.process.sentinel

    def reply(self, order: Order) -> None:
        """Answer a report; a worker that is gone is noticed by its sentinel."""
        try:
            self.connection.send(order)
        except OSError:
            return

    def kill(self) -> None:
        """End the process at once and reap it."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.connection.close()

    def epitaph(self) -> str:
        """Return how the process ended."""
        self.process.join()
        code = self.process.exitcode or 0
        cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return f"{self.name} {cause}; its log: {self.log}"


def _worker_main(plan: WorkerPlan, connection: Connection, log: Path) -> None:
    """Run one worker process from start to end."""
    begin_life()
    # What a fork server has once, its workers would draw alike. (Python sees to its own generator;
    # torch's begins with the same seed in every process anyway.)
    np.random.seed()
    _send_output_to(log)
    os.chdir(plan.run.logs)  # MuJoCo drops its log file into the working directory

    def ask(report: Report) -> Order:
        connection.send(report)
        order: Order = connection.recv()
        return order

    try:
        with prepared_torch():
            Worker(plan).run(ask, connection.send)
        connection.send(None)
    except (EOFError, BrokenPipeError):
        sys.exit(1)  # the coordinator is gone
    except Exception as error:
        connection.send(_failure(error))
        sys.exit(1)


def _failure(error: Exception) -> WorkerFailure:
    details = "".join(traceback.format_exception(error))
    sys.stderr.write(details)
    if isinstance(error, MgrlError):
        return WorkerFailure(str(error), error.exit_code, details)
    if isinstance(error, EnvironmentSetupError):  # the same exit code as in the serial twin
        return WorkerFailure(str(error), UsageError.exit_code, details)
    if isinstance(error, EnvironmentFailure):
        return WorkerFailure(str(error), WorkerError.exit_code, details)
    return WorkerFailure(f"{type(error).__name__}: {error}", MgrlError.exit_code, details)


def _send_output_to(log: Path) -> None:
    """Point the process's own file descriptors at its log, so that C libraries write there too."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
