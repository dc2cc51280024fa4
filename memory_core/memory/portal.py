"""A memory for callers without an event loop: its loop runs on a thread of its own.

Calls are submitted from any thread, which waits for their results. The loop's thread knows `_Loop`, which
does not refer to the `Portal`: so a forgotten portal is collected, and then its loop ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from inspect import isawaitable
from operator import attrgetter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast
from weakref import WeakSet, finalize

from memory_core.backend import LoopOwner
from memory_core.errors import StorageClosedError, WrongEventLoopError
from memory_core.memory.memory import Memory
from memory_core.storage import Capability, Storage

if TYPE_CHECKING:
    Opening = Callable[[], Awaitable[Memory]]

__all__ = ["Portal", "SyncHandle"]

P = ParamSpec("P")
T = TypeVar("T")


class _Answer(Generic[T]):
    """What a call on the loop returns or raises, for the thread that waits for it.

    Not a ``concurrent.futures.Future``: a signal's exception inside its ``Condition`` can leave the lock of
    that taken, and then the loop's thread waits for it for ever. Here the only lock is one that is taken and
    released by single calls of C.

    Attributes:
        abandoned: whether the caller was interrupted.
        task: runs the call, once that has begun.
        is_set: whether there is a result or an error.
    """

    def __init__(self) -> None:
        self.abandoned = False
        self.task: asyncio.Task[Any] | None = None
        self.is_set = False
        self._result: T
        self._error: BaseException | None = None
        self._unset = threading.Lock()
        self._unset.acquire()

    def set(self, result: T) -> None:
        """Answer with a result."""
        self._result = result
        self._release()

    def fail(self, error: BaseException) -> None:
        """Answer with an error."""
        self._error = error
        self._release()

    def wait(self) -> T:
        """Wait for the answer, once."""
        self._unset.acquire()
        return self.get()

    def get(self) -> T:
        """The answer, which is there."""
        # It must not stay here: it refers to frames, and one of them to this object.
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result
        finally:
            del error

    def _release(self) -> None:
        self.is_set = True
        self._unset.release()


class _Loop:
    """An event loop, the thread that runs it, and the memory that is open there.

    Attributes:
        owner: knows of forks.
        closing: whether it ends; then nothing more is submitted, and what was before is run.
        shared: whether several processes may have the store open.
        where: the store, for messages.

    Args:
        opening: opens the memory; called on the loop.
    """

    def __init__(self, opening: Opening) -> None:
        self.owner = LoopOwner()
        self.closing = False
        self.shared = False
        self.where = ""
        self._opening = opening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._opened: _Answer[Memory] = _Answer()
        self._failure: BaseException | None = None
        self._submitting = threading.Lock()
        # An interpreter that exits must not wait for it.
        self._thread = threading.Thread(target=self._run, name="memory-core sync", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Open the memory; raises what opening it raises."""
        try:
            self._thread.start()
            self._opened.wait()
        except Exception:
            if self._thread.ident is not None:
                self._thread.join()
            raise
        except BaseException:
            # Interrupted: what was opened is closed, and the caller does not wait for that.
            self.stop()
            raise

    def call(self, work: Callable[[Memory], Awaitable[T] | T]) -> T:
        """Call a function with the memory on the loop, and wait for its result."""
        self.check_thread()
        answer: _Answer[T] = _Answer()
        try:
            self._submit(work, answer)
            return answer.wait()
        except BaseException:
            # If the caller was interrupted, nobody waits for the call any more.
            if not answer.is_set:
                self._abandon(answer)
            raise

    def _submit(self, work: Callable[[Memory], Awaitable[T] | T], answer: _Answer[T]) -> None:
        with self._submitting:
            if self.closing or self._loop is None:
                raise StorageClosedError("the memory is closed")
            self._loop.call_soon_threadsafe(self._begin, work, answer)

    def _abandon(self, answer: _Answer[Any]) -> None:
        answer.abandoned = True

        def cancel() -> None:
            if answer.task is not None:
                answer.task.cancel()

        # A loop that has ended has cancelled its tasks.
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(cancel)

    def check_thread(self) -> None:
        """Check that this is not the thread of the loop, which must not wait for itself."""
        if threading.current_thread() is self._thread:
            raise WrongEventLoopError(
                "a synchronous memory is used by code that it runs itself, such as the function of an "
                "update: only the record that the function gets can be used there"
            )

    def stop(self) -> None:
        """Begin to close; never blocks. A call that was interrupted can be repeated."""
        with self._submitting:
            self.closing = True
            if self._loop is not None:
                # A loop that has ended takes no calls.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        """Wait until everything is closed; raises what closing it raised."""
        self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                with self._submitting:
                    self._loop = runner.get_loop()
                    if self.closing:
                        # Its start was interrupted: an opening now would meet the caller's next one.
                        return
                runner.run(self._main())
        except BaseException as error:
            if self._opened.is_set:
                raise
            self._opened.fail(error)

    async def _main(self) -> None:
        opening = asyncio.create_task(self._open())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((opening, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
        try:
            memory = await opening
        finally:
            if not self._stop.is_set() and opening.exception() is not None:
                stopped.cancel()
        self._opened.set(memory)
        await stopped
        try:
            await memory.aclose()
        except Exception as error:  # noqa: BLE001  # the caller of `join` gets it
            self._failure = error
        # They find it closed.
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _open(self) -> Memory:
        memory = await self._opening()
        try:
            stats = await memory.stats()
        except BaseException:
            await memory.aclose()
            raise
        self.where = stats.location
        self.shared = Capability.MULTI_PROCESS in memory.storage.capabilities
        return memory

    def _begin(self, work: Callable[[Memory], Awaitable[T] | T], answer: _Answer[T]) -> None:
        if answer.abandoned:
            return
        answer.task = asyncio.create_task(self._call(work, answer))
        self._calls.add(answer.task)
        answer.task.add_done_callback(self._calls.discard)

    async def _call(self, work: Callable[[Memory], Awaitable[T] | T], answer: _Answer[T]) -> None:
        try:
            result = work(self._opened.get())
            answer.set(cast("T", await result if isawaitable(result) else result))
        except BaseException as error:
            answer.fail(error)
            if not isinstance(error, Exception):
                raise


_portals: WeakSet[Portal] = WeakSet()


def _forked() -> None:
    for portal in _portals:
        # A thread of the parent may have held it.
        portal.starting = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def _forgotten(loop: _Loop) -> None:
    if loop.owner.forked or not loop.is_running:
        return
    was_closed = loop.closing
    loop.stop()
    if not was_closed:
        warnings.warn(f"unclosed memory in {loop.where}", ResourceWarning, stacklevel=2)


class Portal:
    """Runs calls on a memory in a loop of its own; threads can share it.

    Args:
        opening: opens the memory.
        again: opens it again in a forked child, if several processes may have its store open.
    """

    def __init__(self, opening: Opening, again: Opening) -> None:
        self.starting = threading.Lock()
        self._again = again
        self._loop: _Loop
        self._start(opening)
        _portals.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""
        return not (self._loop.closing or self._loop.owner.forked)

    def call(self, work: Callable[[Memory], Awaitable[T] | T]) -> T:
        """Call a function with the memory on the loop, and wait for its result.

        Raises:
            StorageClosedError: it is closed, or in a forked child that cannot open it again.
            WrongEventLoopError: this thread runs the loop.
        """
        if self._loop.owner.forked:
            self._open_again()
        return self._loop.call(work)

    def close(self) -> None:
        """Close the memory and end the thread. The thread of another process belongs to that."""
        loop = self._loop
        if loop.owner.forked:
            loop.closing = True
        else:
            loop.check_thread()
            loop.stop()
            loop.join()

    def _open_again(self) -> None:
        with self.starting:
            if self._loop.closing or not self._loop.owner.forked:
                return
            if not self._loop.shared:
                raise StorageClosedError(
                    f"the memory in {self._loop.where} was opened before a fork, and its store can be open "
                    "in one process only"
                )
            self._start(self._again)

    def _start(self, opening: Opening) -> None:
        loop = _Loop(opening)
        finalize(self, _forgotten, loop).atexit = False
        loop.start()
        self._loop = loop


class SyncHandle:
    """What `SyncMemory` has besides the twins of the methods of `Memory`.

    Args:
        portal: runs the calls.
        derive: makes this handle's memory of the one that was opened.
        owner: whether closing this handle closes the store.
    """

    def __init__(
        self,
        portal: Portal,
        derive: Callable[[Memory], Memory] = lambda memory: memory,
        *,
        owner: bool = True,
    ) -> None:
        self._portal = portal
        self._derive = derive
        self._owner = owner
        # Both change on the loop's thread only.
        self._opened: Memory | None = None
        self._memory: Memory | None = None
        self._namespace: str = self._call(attrgetter("namespace"))

    @property
    def namespace(self) -> str:
        """The namespace this memory is bound to."""
        return self._namespace

    @property
    def storage(self) -> Storage:
        """The storage below, caches included. It belongs to this memory's own event loop."""
        return self._call(attrgetter("storage"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the accepted writes, then close. A second call does nothing."""
        try:
            if self._portal.is_open:
                # Another thread may close it at the same time.
                with suppress(StorageClosedError):
                    self._await(Memory.aclose)
        finally:
            if self._owner:
                self._portal.close()

    def _await(
        self,
        method: Callable[Concatenate[Memory, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return self._portal.call(self._bound(method, args, kwargs))

    def _call(
        self, method: Callable[Concatenate[Memory, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return self._portal.call(self._bound(method, args, kwargs))

    def _bound(
        self, method: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Callable[[Memory], T]:
        """The call of a method, given the memory that was opened."""
        # A generator may itself use this memory, which it cannot on the loop's thread.
        read = [list(cast("Iterator[Any]", x)) if isinstance(x, Iterator) else x for x in args]
        # The memory may be of a class that overrides the method.
        name = getattr(method, "__name__", "")
        return lambda memory: getattr(type(self._of(memory)), name, method)(
            self._of(memory), *read, **kwargs
        )

    def _derived(
        self, method: Callable[Concatenate[Memory, P], Memory], *args: P.args, **kwargs: P.kwargs
    ) -> Self:
        return type(self)(
            self._portal,
            lambda memory: method(self._of(memory), *args, **kwargs),
            owner=self._owner and method is not Memory.scoped,
        )

    def _of(self, opened: Memory) -> Memory:
        """This handle's memory; in a forked child, another one was opened."""
        if self._memory is None or self._opened is not opened:
            self._memory, self._opened = self._derive(opened), opened
        return self._memory
