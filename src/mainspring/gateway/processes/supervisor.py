"""The parent of the processes that serve: starts them, starts again what dies, replaces them one by one, and ends last."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from mainspring.errors import ServingError
from mainspring.gateway.processes.child import Aside, Child, Command, Post

START_SECONDS = 60.0
STOP_SECONDS = 14.0
_LOOK_SECONDS = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_log = logging.getLogger(__name__)


class Supervisor:
    """``workers`` processes that answer on one listening socket and, of each of ``asides``, one process beside them.

    The socket is made here and inherited: a connection that nobody has accepted outlives every worker, and another takes it.
    ``command`` gives the command line of the worker with a number; no two that live have the same. A process that ends unasked
    is started again, see `Post`; the log says what it died of and its last words. SIGHUP replaces one worker after another, each when
    its successor is ready. SIGTERM and SIGINT end all of them and then this process; what has not drained after 14 s is killed. When
    this process is gone, the end of their standard input tells them. ``changed`` gets the number of ready workers and the restarts by
    cause whenever one of them changes.
    """

    def __init__(
        self,
        listener: socket.socket,
        command: Command,
        workers: int,
        *,
        asides: Sequence[Aside] = (),
        changed: Callable[[int, Mapping[str, int]], None] = lambda _ready, _restarts: None,
    ) -> None:
        self._listener = listener
        self._workers = [Post(f"Worker {one}", command, range(one, 3 * workers, workers)) for one in range(workers)]
        self._posts = [*self._workers, *(Post(one.title, one.command, (0,), alone=True, stays=one.stays) for one in asides)]
        self._changed = changed
        self._known: tuple[int, dict[str, int]] | None = None
        self._restarts: Counter[str] = Counter()
        self._selector = selectors.DefaultSelector()
        self._to_replace: deque[Post] = deque()
        self._stopping = self._begun = False

    def run(self, announce: Callable[[], None], *, end_of: int | None = None) -> None:
        """Until told to stop, or the descriptor ``end_of`` has been read to its end; ``announce`` is called once all are ready.

        Raises:
            ServingError: a process ended before that; the message holds its last words.
        """
        with self._hearing_signals():
            if end_of is not None:
                self._selector.register(end_of, selectors.EVENT_READ, lambda: self._read(end_of))
            try:
                while not self._stopping:
                    self._step(time.monotonic())
                    if not self._begun and all(post.ready for post in self._posts):
                        self._begun = True
                        announce()
            finally:
                self._end()

    def _step(self, now: float) -> None:
        for post in self._posts:
            if post.child is None and now >= post.not_before and not (post.alone and post.leaving):
                post.child = self._start(post, now)
        self._replace(now)
        due = [post.not_before - now for post in self._posts if post.child is None and post.not_before > now]
        self._hear(min([_LOOK_SECONDS, *due]))
        self._bury(time.monotonic())
        known = (sum(post.ready for post in self._workers), dict(self._restarts))
        if known != self._known:
            self._known = known
            self._changed(*known)

    def _start(self, post: Post, now: float) -> Child | None:
        number = post.free_number()
        if number is None:
            return None
        try:
            child = Child.start(post.command(number), number, () if post.alone else (self._listener.fileno(),), now)
        except OSError as error:
            _log.error("%s cannot be started (%s); that is tried again in %.1f s.", post.title, error, post.wait_longer(now, now))
            return None
        for output in child.outputs:
            self._selector.register(output, selectors.EVENT_READ, child)
        return child

    def _replace(self, now: float) -> None:
        """Take the replacement of processes one step further: one successor boots at a time."""
        if not self._to_replace:
            return
        post = self._to_replace[0]
        if post.alone or post.child is None:
            self._to_replace.popleft()
            self._retire(post, None, now)
        elif post.successor is None:
            post.successor = self._start(post, now)
        elif post.successor.ready:
            self._to_replace.popleft()
            self._retire(post, post.successor, now)
        elif now - post.successor.started > START_SECONDS:
            post.successor.process.kill()

    def _retire(self, post: Post, successor: Child | None, now: float) -> None:
        if post.child is not None:
            post.child.tell_to_stop(now)
            post.leaving.append(post.child)
        post.child, post.successor = successor, None

    def _hear(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if not isinstance(key.data, Child):
                key.data()
            elif not self._pass_on(key.data, key.fd):
                self._selector.unregister(key.fd)

    def _bury(self, now: float) -> None:
        for post in self._posts:
            for child in post.children:
                if child.process.poll() is None:
                    if child.told is not None and now - child.told > STOP_SECONDS:
                        child.process.kill()
                    continue
                self._forget(child)
                succeeding = child is post.successor
                post.vacate(child)
                if child.told is None:
                    self._died(post, child, now, succeeding=succeeding)

    def _died(self, post: Post, child: Child, now: float, *, succeeding: bool) -> None:
        cause, words = child.cause(), "\n".join(child.words).strip()
        last = f"Its last words: {words}" if words else "It said nothing."
        if not self._begun:
            raise ServingError(f"{post.title} ended with {cause} before the server was up. {last}")
        if succeeding:
            self._to_replace.clear()
            _log.error("%s is not replaced, nor are the next: its successor ended with %s. %s", post.title, cause, last)
            return
        self._restarts[cause] += 1
        wait = post.wait_longer(now, child.started)
        _log.error("%s (process %d) ended with %s; the next starts in %.1f s. %s", post.title, child.process.pid, cause, wait, last)

    def _forget(self, child: Child) -> None:
        open_ = self._selector.get_map()
        for output in [one for one in child.outputs if one in open_]:
            self._pass_on(child, output)
            self._selector.unregister(output)
        child.close()

    def _pass_on(self, child: Child, output: int) -> bool:
        """Hear what a process says, say again what it says on standard error; False when it will say no more."""
        said = child.hear(output)
        if said and output == child.outputs[1]:
            sys.stderr.buffer.write(said)
            sys.stderr.flush()
        return said != b""

    def _end(self) -> None:
        """Close the door, tell every process to stop, and wait for the last of them."""
        self._listener.close()
        for post in self._posts:
            for child in post.children:
                child.tell_to_stop(time.monotonic())
        while any(post.children for post in self._posts):
            self._hear(_LOOK_SECONDS)
            self._bury(time.monotonic())
        self._selector.close()

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        """Signals wake the selector; what they ask for is done in `_step`, never inside a handler."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._take(ours.recv(64)))
        before = {one: signal.signal(one, lambda *_: None) for one in _SIGNALS}
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for one, handler in before.items():
                signal.signal(one, handler)
            ours.close()
            theirs.close()

    def _read(self, descriptor: int) -> None:
        if not os.read(descriptor, 4096):
            self._selector.unregister(descriptor)
            self._stopping = True

    def _take(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stopping = True
        if signal.SIGHUP in numbers and not self._to_replace:
            self._to_replace.extend(post for post in self._posts if not post.stays)
