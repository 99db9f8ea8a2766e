"""Reading the next batch while the current one is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from fieldcast.data import Batch


class Prefetcher:
    """Calls ``load(step)`` for the next step in a thread while this one is computed."""

    def __init__(self, load: Callable[[int], Batch], num_steps: int) -> None:
        self._load = load
        self._num_steps = num_steps
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._next: tuple[int, Future[Batch]] | None = None

    def take(self, step: int) -> Batch:
        """The batch of a step; begins to read that of the next."""
        ready = self._next[1] if self._next and self._next[0] == step else self._thread.submit(self._load, step)
        batch = ready.result()
        if step + 1 < self._num_steps:
            self._next = (step + 1, self._thread.submit(self._load, step + 1))
        return batch

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
