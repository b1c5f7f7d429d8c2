"""Two processes as torchrun starts them, see `forked`."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from forked import Forked

dist = torch.distributed


class Ranks:
    """Two processes that run `work(*arguments)`, each with its rank in the environment."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
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
        self.processes = [
            Forked(work, *arguments, environment={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
        ]

    def finish(self) -> tuple[list[int | None], list[str]]:
        """Wait for the end of both; their statuses and what they said."""
        until = time.time() + 240  # on a busy machine
        try:
            said = ["".join(process.communicate(until - time.time())) for process in self.processes]
            return [process.returncode for process in self.processes], said
        finally:
            for process in self.processes:
                process.kill()
