"""An event loop on a thread of its own, which makes a worker's calls of async functions."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from millstream.operators.lookup import Answers, Arguments
from millstream.operators.user_function import AsyncFunction


class LookupLoop:
    """Makes calls, of each function so many at a time. It starts with the first one.

    Parameters
    ----------
    name
        Of the thread.
    wake
        Called when all calls that were handed over together have ended.
    """

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._name = name
        self._wake = wake
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def submit(self, function: AsyncFunction, calls: Sequence[Arguments]) -> Future[Answers]:
        """Make a call for each of some arguments."""
        if not calls:
            done: Future[Answers] = Future()
            done.set_result([])
            return done
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future = asyncio.run_coroutine_threadsafe(_answers(function, calls), self._loop)
        future.add_done_callback(lambda _: self._wake())
        return future

    def close(self) -> None:
        """Break off what is in flight, and end the thread."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        loop.run_forever()
        loop.run_until_complete(_broken_off(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class LookupsAtOnce:
    """Makes calls when they are handed over: who hands them over waits for the answers."""

    def __init__(self) -> None:
        self._loop = LookupLoop("lookups", lambda: None)

    def submit(self, function: AsyncFunction, calls: Sequence[Arguments]) -> Future[Answers]:
        """Make a call for each of some arguments, and wait for all of them."""
        future = self._loop.submit(function, calls)
        future.exception()
        return future

    def close(self) -> None:
        """End the thread."""
        self._loop.close()


async def _broken_off(tasks: set[asyncio.Task[Any]]) -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _answers(function: AsyncFunction, calls: Sequence[Arguments]) -> Answers:
    answers: Answers = [None] * len(calls)
    waiting = iter(enumerate(calls))

    async def make(some: Iterator[tuple[int, Arguments]]) -> None:
        for index, arguments in some:
            answers[index] = await _answer(function, arguments)

    count = min(function.concurrency, len(calls))
    await asyncio.gather(*(make(waiting) for _ in range(count)))
    return answers


async def _answer(function: AsyncFunction, arguments: Arguments) -> Any:
    """Return what a call gives, or the exception of its last attempt."""
    failed: Exception | None = None
    for attempt in range(function.attempts):
        if attempt:
            # Not all at once again, where a service was overwhelmed.
            pause_s = function.backoff_us / 1e6 * 2 ** (attempt - 1)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
        try:
            async with asyncio.timeout(function.timeout_us / 1e6):
                return await function.function(*arguments)
        except TimeoutError as error:
            text = str(error) or f"no answer within {function.timeout_us / 1e6:g} s"
            failed = TimeoutError(f"function {function.name}: {text}")
        except Exception as error:
            failed = error
    return failed
