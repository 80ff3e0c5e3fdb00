"""Requests that travel together: messages of ours go out with a request of the driver's, and nobody waits in between.

The driver sends one request and waits for its answer: a transaction, the policy's question and the query's own Parse
would be three waits, in each of which two processes have to be woken. Here the first two go ahead of the third. They
hold no Sync, so to the server all are one: whatever fails, the server skips the rest, and the policy's question is
asked in such a way that it fails unless its answer is a plain yes. The driver stays in step by itself: cancelling,
errors and the end of a connection are its business, and its states skip what belongs to no request of its own. A `Line`
between it and the transport puts the messages ahead and listens to their answers.

Whatever is not as expected closes the connection.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

MOST_HEARD: Final = 1024 * 1024
"""Bytes that are listened to for one request: as many as no list of a query's names and columns takes."""

STENCILS: Final = 64
"""Of each connection; one takes a few kilobytes at most."""
STENCIL_COLUMNS: Final = 100
CLOSER_S: Final = 60.0
CLOSER_NAMES: Final = 1_000

PLANS: Final = 32
"""Of each connection. A plan of an everyday text takes 70 kilobytes of the server's memory, of the longest ones up to
half a megabyte."""
PLAN_CHARS: Final = 2_000
"""Longest text of which one is kept."""

PLAIN: Final = "hubscope_plain"
"""What the policy's question is called on a connection."""
BEGIN: Final = "hubscope_begin"
"""What the beginning of a transaction is called there."""

ROWS: Final = "rows"
"""What the portal is called, which rows are read of."""
_UNNAMED: Final = ROWS.encode() + b"\0\0"
_EXECUTE: Final = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"
_ERROR: Final = 0x45
_PARSED: Final = b"1\x00\x00\x00\x04"
_CLOSED: Final = b"3\x00\x00\x00\x04"
_DONE: Final = b"123"
"""ParseComplete, BindComplete, CloseComplete."""
_ENDS: Final = b"1Tn"
"""What a Parse ends with, or a Describe."""
_OF_THE_SESSION: Final = b"NSA"
"""NoticeResponse, ParameterStatus, NotificationResponse."""
_NO_PLAN: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.FeatureNotSupportedError)
"""What the server says when it has no such statement (any more), or its result has become another."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the server answered to the messages that went ahead.

    Attributes:
        completed: the command tags, one for each statement that came to its end.
        rows: of all of them together, values as text.
        description: the messages that describe the parameters and columns of the text behind them, as they came; empty
            where the server did not come that far.
        answer: all of this as it came, the description included; empty as that is, and where something that is of the
            session came in between.
    """

    completed: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    description: bytes = b""
    answer: bytes = b""


_NUMBERS: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Lasting:
    """What is known of a text whose statements may stay on the server, parsed and planned.

    They are of use only beside the policy's question, and only if the server answers to that, and describes the text,
    byte by byte as when they were made: it does not notice by itself that something came to stand before what a name
    meant.

    Attributes:
        number: no other text's, and no other description's of the same text.
        expected: what the server says when it need not parse the text.
    """

    number: int
    expected: bytes

    @staticmethod
    def of(heard: Heard) -> Lasting | None:
        """What may be kept of a text that was just described behind the policy's question."""
        before = heard.answer.removesuffix(_PARSED + heard.description)
        return Lasting(next(_NUMBERS), before + heard.description) if before != heard.answer else None


NOTHING: Final = Heard((), ())


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a query that went out in one.

    Attributes:
        heard: of the messages ahead of it; None where it is, byte by byte, what was expected.
        first: its first rows and whether they are all; or the server's error, whichever message it is of.
    """

    heard: Heard | None
    first: tuple[list[Any], bool] | asyncpg.PostgresError


def statement(sql: str) -> bytes:
    """Parse, Bind and Execute of a statement without parameters."""
    return _parse(sql) + bound("", ())


def bound(name: str, arguments: Sequence[str]) -> bytes:
    """Bind and Execute of a prepared statement; arguments and results as text."""
    values = [each.encode() for each in arguments]
    return (
        _message(
            b"B",
            b"\0%b\0\0\0" % name.encode(),
            len(values).to_bytes(2, "big"),
            *(part for value in values for part in (len(value).to_bytes(4, "big"), value)),
            b"\0\0",
        )
        + _EXECUTE
    )


def array(values: Iterable[str | bool | None]) -> str:
    """A one-dimensional array literal."""
    return "{" + ",".join(_element(value) for value in values) + "}"


def as_text(value: str | bool | Sequence[str | bool | None]) -> str:
    """An argument of `bound`."""
    if isinstance(value, str):
        return value
    return ("t" if value else "f") if isinstance(value, bool) else array(value)


def _element(value: str | bool | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "t" if value else "f"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _parse(sql: str, name: bytes = b"") -> bytes:
    text = sql.encode()
    if 0 in text:  # what stands behind it would be read as the rest of the message
        raise asyncpg.InterfaceError("a statement holds a NUL character")
    return _message(b"P", name, b"\0", text, b"\0\0\0")


def _describe(name: bytes) -> bytes:
    return _message(b"D", b"S", name, b"\0")


def _close(name: bytes) -> bytes:
    """No error where there is none of that name."""
    return _message(b"C", b"S", name, b"\0")


def _bound_to(name: bytes, data: Any) -> bytes:
    """The driver's Bind of an unnamed statement, and what follows it, for one of that name.

    Raises:
        asyncpg.InternalClientError: it is no such message.
    """
    message = bytes(data)
    if message[:1] != b"B" or not message.startswith(_UNNAMED, 5):
        raise asyncpg.InternalClientError("the driver sent something else")
    size = int.from_bytes(message[1:5], "big") + len(name)
    end = 4 + len(_UNNAMED)
    return b"".join((b"B", size.to_bytes(4, "big"), message[5:end], name, message[end:]))


def _message(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def heard(data: bytes) -> Heard:
    """What came up to the description of the text that went behind, or to an error in its place.

    Raises:
        asyncpg.InternalClientError: it is no such answer.
    """
    completed: list[str] = []
    rows: list[tuple[str | None, ...]] = []
    at, end, described, alone = 0, len(data), -1, True
    try:
        while at + 5 <= end:
            kind, stop = data[at], at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
            if kind == _ERROR:
                return Heard(tuple(completed), tuple(rows))
            if stop < at + 5 or stop > end:
                break
            if kind in b"Tn" and described >= 0:
                return Heard(tuple(completed), tuple(rows), data[described:stop], data[:stop] if alone else b"")
            if kind == 0x74:
                described = at
            elif kind == 0x44:
                rows.append(_row(data[at + 5 : stop]))
            elif kind == 0x43:
                completed.append(data[at + 5 : stop - 1].decode())
            elif kind in _OF_THE_SESSION:
                alone = False
            elif kind not in _DONE:
                break
            at = stop
    except ValueError as error:
        raise asyncpg.InternalClientError("the server's answer cannot be read") from error
    raise asyncpg.InternalClientError("the server's answer is not what was asked for")


def _row(body: bytes) -> tuple[str | None, ...]:
    """Raises: ValueError: it is no row."""
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(body[:2], "big")):
        size = int.from_bytes(body[at : at + 4], "big", signed=True)
        at += 4
        if size < -1 or at + max(size, 0) > len(body):
            raise ValueError("a value ends beyond its row")
        if size == -1:
            values.append(None)
        else:
            values.append(body[at : at + size].decode())
            at += size
    if at != len(body):
        raise ValueError("a row goes on behind its values")
    return tuple(values)


async def dial(*arguments: Any, loop: Any = None, **keywords: Any) -> asyncpg.Connection:
    """asyncpg.connect, with a `Line` on the way."""
    running = loop or asyncio.get_running_loop()
    connection = await asyncpg.connect(*arguments, loop=_Dialing(running), **keywords)
    connection._loop = running
    return connection


class _Dialing:
    """An event loop that lays a line wherever the driver connects to a server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, factory: Any, *arguments: Any, **keywords: Any) -> tuple[Line, Any]:
        """Both ends of a line over TCP."""
        return _ends(await self._loop.create_connection(lambda: Line(factory()), *arguments, **keywords))

    async def create_unix_connection(self, factory: Any, *arguments: Any, **keywords: Any) -> tuple[Line, Any]:
        """The same over a socket."""
        return _ends(await self._loop.create_unix_connection(lambda: Line(factory()), *arguments, **keywords))

    async def start_tls(self, line: Line, *arguments: Any, **keywords: Any) -> Line | None:
        """A line within TLS; which protocol of the driver's ends it, `Line.set_protocol` says."""
        transport = await self._loop.start_tls(line.transport, *arguments, **keywords)
        return None if transport is None else Line(None, transport)


def _ends(made: tuple[Any, Line]) -> tuple[Line, Any]:
    line = made[1]
    return line, line.driver


class Line(asyncio.Protocol):
    """What stands between the driver and its transport, to each of them the other one.

    What it is told to put ahead goes out in one write with the driver's next message: a process that waits is woken by
    each write.

    Attributes:
        driver: its protocol.
        transport: what is below.
        connection: the driver's own, not a pool's proxy of it; from `set_up` on.
    """

    def __init__(self, driver: Any, transport: Any = None) -> None:
        self.driver = driver
        self.transport = transport
        self.connection: Any = None
        self._ahead: list[bytes] = []
        self._listening = False
        self._heard = bytearray()
        self._holding = 0
        self._expecting = (b"", 0)
        self._at = 0
        self._kept_by_driver: tuple[Any, ...] = ()
        self._bind_to = b""
        # Behind a pooler, other connections may have left names of theirs where ours leads to now.
        self._name = f"hubscope_{secrets.token_hex(8)}_"
        self._plans: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        self._left: list[tuple[bytes, bytes]] = []
        self._stencils: OrderedDict[Hashable, Any] = OrderedDict()

    @staticmethod
    def of(connection: Any) -> Line:
        """The line of a connection that `dial` made.

        Raises:
            asyncpg.InternalClientError: it has none.
        """
        line = connection._transport
        if not isinstance(line, Line):
            raise asyncpg.InternalClientError("the connection has no line")
        return line

    async def set_up(self, connection: Any, **statements: str) -> None:
        """Prepare statements under names of their own; what nobody holds the driver closes on the server."""
        self.connection = getattr(connection, "_con", connection)
        for name, sql in statements.items():
            self._kept_by_driver += (await self.connection.prepare(sql, name=name),)

    # Towards the driver: the transport calls

    def connection_made(self, transport: Any) -> None:
        """This is what the driver writes to."""
        self.transport = transport
        self.driver.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Pass it on, but for what is held back."""
        if self._listening:
            self._heard += data
            if self._holding:
                self._hold_back()
                return
            if len(self._heard) > MOST_HEARD:
                self._listening = False
        self.driver.data_received(data)

    def _hold_back(self) -> None:
        """Keep answers to what went ahead from the driver, which would take their rows for its own.

        They end with so many completed Parses and Describes, or with an error, which is the driver's to see.
        """
        data, end = self._heard, len(self._heard)
        expected, behind = self._expecting
        if not self._at and expected and data.startswith(expected):
            self._at, self._holding = len(expected), behind
            if not behind:
                self._let_go()
                return
        while self._at + 5 <= end:
            kind, stop = data[self._at], self._at + 1 + int.from_bytes(data[self._at + 1 : self._at + 5], "big")
            if kind == _ERROR:
                self._let_go()
                return
            if stop < self._at + 5 or stop > MOST_HEARD:
                self.transport.abort()
                return
            if stop > end:
                return
            if kind in _OF_THE_SESSION:
                self.driver.data_received(bytes(data[self._at : stop]))
            self._at = stop
            self._holding -= kind in _ENDS
            if not self._holding:
                self._let_go()
                return

    def _let_go(self) -> None:
        """The rest is the driver's."""
        self._holding, self._listening = 0, False
        rest = bytes(self._heard[self._at :])
        if rest:
            self.driver.data_received(rest)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        told: bool | None = self.driver.eof_received()
        return told

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on."""
        self.driver.connection_lost(error)

    def pause_writing(self) -> None:
        """Pass it on."""
        self.driver.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self.driver.resume_writing()

    # Towards the transport: the driver calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def set_protocol(self, driver: Any) -> None:
        """The driver's protocol comes after the one that asks for TLS."""
        self.driver = driver
        self.transport.set_protocol(self)

    def write(self, data: Any) -> None:
        """Write it behind what goes ahead of it."""
        if self._bind_to:
            data, self._bind_to = _bound_to(self._bind_to, data), b""
        if self._ahead:
            data = b"".join((*self._ahead, data))
            self._ahead.clear()
        self.transport.write(data)

    # Requests

    async def prepare(self, ahead: Sequence[bytes], sql: str) -> tuple[Heard, Any]:
        """Prepare a text, unnamed, behind other messages.

        Args:
            ahead: those messages, from `statement` and `bound`, one for each statement.
            sql: the text.

        Returns:
            What was heard of the messages ahead, and the driver's prepared statement; or, in its place, the server's
            error, which came from the first statement that was not completed.

        Raises:
            asyncpg.InterfaceError, asyncpg.InternalClientError: the connection is closed now. OSError: it was.
        """
        self._heard.clear()
        self._listening = True
        try:
            self._put(*ahead)
            try:
                told = await self.connection.prepare(sql, name="")
            except asyncpg.PostgresConnectionError:
                raise
            except asyncpg.PostgresError as error:
                told = error
            if not self._listening:
                raise asyncpg.InternalClientError("the server's answer has no end")
            answer = heard(bytes(self._heard))
            if len(answer.completed) != len(ahead) and not isinstance(told, asyncpg.PostgresError):
                raise asyncpg.InternalClientError("the server left out what went ahead")
            return answer, told
        except Exception:
            self.connection.terminate()  # nobody knows what has been read of it
            raise
        finally:
            self._listening = False
            self._heard.clear()
            self._ahead.clear()

    async def at_once(
        self,
        ahead: Sequence[bytes],
        sql: str,
        text: str,
        types: Sequence[str],
        arguments: Sequence[str | None],
        page: int,
        expected: bytes = b"",
        lasting: Lasting | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Told | None:
        """Describe one text and run another behind it, all with the messages ahead, in one wait.

        Args:
            ahead: from `statement` and `bound`, one for each statement.
            sql: what is described.
            text, types, arguments, page: as `rows` takes them.
            expected: `Heard.answer` of the time before, if any: most times it is the same.
            lasting: what stays of the text, where it may. It is left on the server by the first of these calls, and
                used by the next ones, which say that nothing was heard where it was not of use.
            meanwhile: called while the server is at work; raises nothing.

        Returns:
            What came of it; None, and nothing was done, where rows of these types were not read here before.

        Raises:
            asyncpg.InterfaceError, asyncpg.InternalClientError: the connection is closed now. OSError: it was.
        """
        stencil = self._stencils.get((len(arguments), *types))
        if stencil is None:
            return None
        names = self._plans.get(lasting.number) if lasting else None
        use = lasting if names else None
        if use and names:
            expected = use.expected
            messages = [*ahead, _describe(names[0])]
        else:
            names = self._new_names() if lasting else (b"", b"")
            messages = [*ahead, _parse(sql, names[0]), _describe(names[0]), _parse(text, names[1])]
            if lasting:  # until it is known what became of these, they count among those that are left
                closing = [_close(name) for left in self._left for name in left]
                messages[:0] = closing
                expected = _CLOSED * len(closing) + expected
                self._left = [names]
        self._heard.clear()
        self._at, self._holding, self._listening = 0, sum(each[:1] in (b"P", b"D") for each in messages), True
        self._expecting = (expected, 0 if use else 1)
        first: tuple[list[Any], bool] | asyncpg.PostgresError
        try:
            self._put(*messages)
            self._bind_to = names[1]
            if meanwhile:  # in the next turn of the loop, at whose end this one's writes go out
                asyncio.get_running_loop().call_soon(meanwhile)
            try:
                records, _, ended = await self.driver.bind_execute(stencil, arguments, ROWS, page, True, None)
                first = (records, ended)
            except asyncpg.PostgresConnectionError:
                raise
            except asyncpg.PostgresError as error:
                first = error
            fine = not isinstance(first, asyncpg.PostgresError)
            if expected and self._heard.startswith(expected) and not (use and isinstance(first, _NO_PLAN)):
                answer = None
            else:
                answer = heard(bytes(self._heard))
                if len(answer.completed) != len(ahead) and fine:
                    raise asyncpg.InternalClientError("the server left out what went ahead")
            if use and answer:
                self._left.append(self._plans.pop(use.number))
                return Told(NOTHING, first)
            if lasting and fine and answer is None:  # of another answer, it might be the plan of another query
                self._keep_plan(lasting.number, names)
            return Told(answer, first)
        except Exception:
            self.connection.terminate()
            raise
        finally:
            if self._holding:  # given up: the driver waits for the end of what is under way
                self._let_go()
            self._heard.clear()
            self._ahead.clear()
            self._bind_to = b""

    def _new_names(self) -> tuple[bytes, bytes]:
        name = f"{self._name}{next(_NUMBERS)}".encode()
        return name, name + b"r"

    def _keep_plan(self, number: int, names: tuple[bytes, bytes]) -> None:
        """What these statements are of is known, so they are of use until others are used more."""
        if number not in self._plans:
            self._plans[number] = names
            self._left.remove(names)
        self._plans.move_to_end(number)
        while len(self._plans) > PLANS:
            self._left.append(self._plans.popitem(last=False)[1])

    async def rows(
        self,
        sql: str,
        types: Sequence[str],
        arguments: Sequence[str | None],
        page: int,
        first: tuple[list[Any], bool] | None = None,
    ) -> AsyncGenerator[list[Any], None]:
        """Run a query in the transaction that is open, so many rows at a time.

        The driver prepares a text before it runs it, to learn the types of its columns. Where those are known by the
        text itself, Parse goes ahead of the driver's Bind, and rows are read by a stencil: a statement of the same
        types. Its own iteration hands out one row after the other, which takes longer than to receive them, and asks
        the server once more to close what the end of the transaction closes anyway.

        Args:
            sql: each of whose columns is of one of `types` whatever the database holds, each of whose parameters is
                text.
            types: names of types of pg_catalog.
            arguments: of the parameters.
            page: most rows of one list.
            first: the first rows, where they came by `at_once` and are not all.
        """
        stencil = await self._stencil(types, len(arguments))
        if stencil is None:
            stencil = (await self.connection.prepare(sql, name=""))._state
        elif first is None:
            self._put(_parse(sql))
        try:
            if first is not None:
                records, ended = first
            else:
                records, _, ended = await self.driver.bind_execute(stencil, arguments, ROWS, page, True, None)
            while records:
                yield records
                if ended:
                    return
                records, _, ended = await self.driver.execute(stencil, ROWS, page, True, None)
        except (asyncpg.InterfaceError, asyncpg.InternalClientError):
            self.connection.terminate()
            raise
        finally:
            self._ahead.clear()

    async def _stencil(self, types: Sequence[str], arguments: int) -> Any:
        key = (arguments, *types)
        stencil = self._stencils.get(key)
        if stencil is not None:
            self._stencils.move_to_end(key)
            return stencil
        if not types or len(types) > STENCIL_COLUMNS:
            return None
        columns = ", ".join(f"NULL::pg_catalog.{each}" for each in types)
        given = "".join(f", ${i}::pg_catalog.text" for i in range(1, arguments + 1))
        sql = f"SELECT {columns} WHERE pg_catalog.num_nulls(0{given}) > 0"
        stencil = (await self.connection.prepare(sql, name=""))._state
        if not stencil.prepared:  # the driver would send the stencil's own text again
            return None
        self._stencils[key] = stencil
        while len(self._stencils) > STENCILS:
            self._stencils.popitem(last=False)
        return stencil

    def _put(self, *messages: bytes) -> None:
        """Put these ahead of the driver's next request, which comes at once.

        Raises:
            asyncpg.InterfaceError: it cannot come, or the connection is closed.
        """
        if self.connection.is_closed() or self.driver._is_cancelling():
            raise asyncpg.InterfaceError("the connection is closed, or its last request not yet given up")
        self._ahead.extend(messages)


class Foresight:
    """What was found to need a closer look lately: there the server is not asked in vain, which it would log."""

    def __init__(self) -> None:
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def learn(self, names: Iterable[Hashable]) -> None:
        """These need a closer look."""
        for name in names:
            self._until[name] = time.monotonic() + CLOSER_S
            self._until.move_to_end(name)
        while len(self._until) > CLOSER_NAMES:
            self._until.popitem(last=False)

    def knows(self, names: Callable[[], Iterable[Hashable]]) -> bool:
        """Whether one of these needs a closer look."""
        if not self._until:
            return False
        now = time.monotonic()
        return any(self._until.get(name, 0.0) > now for name in names())
