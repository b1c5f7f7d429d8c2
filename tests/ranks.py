"""Two processes as torchrun starts them, forked off one that has imported everything.

That saves the seconds that each import of torch takes.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

dist = torch.distributed


class Ranks:
    """Two processes that run `work(*arguments)`, each with its rank in the environment."""

    context = multiprocessing.get_context("forkserver") if os.name != "nt" else None

    def __init__(self, folder: Path, work: Callable[..., None], *arguments: object) -> None:
        self.context.set_forkserver_preload(["train", "predict", "sklearn.model_selection", "torch._dynamo"])
        # torchrun's own process holds this store, so that it outlives the processes it starts
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
        }
        self.logs = [folder / f"rank{rank}.txt" for rank in range(2)]
        self.processes = []
        for rank, log in enumerate(self.logs):
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = self.context.Process(target=as_rank, args=(environment, log, work, arguments))
            process.start()
            self.processes.append(process)

    def finish(self) -> tuple[list[int], list[str]]:
        """Wait for the end of both; their statuses and what they said."""
        until = time.time() + 60
        try:
            for process in self.processes:
                process.join(until - time.time())
            return [process.exitcode for process in self.processes], [log.read_text() for log in self.logs]
        finally:
            for process in self.processes:
                process.kill()


def as_rank(environment: dict[str, str], log: Path, work: Callable[..., None], arguments: tuple) -> None:
    """What a process does: its words go to a file."""
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.update(environment)
    torch.set_num_threads(1)
    work(*arguments)
