"""Execution: a READ ONLY transaction that is always rolled back, prepared statements, and limits on everything.

A statement is prepared as it came, to learn its columns and parameters, and runs inside a SELECT of ours that asks for
each value in the form it can be told exactly, cut at the limit by the server, so that no value can fill our memory.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import asyncpg

from hubscope.errors import DatabaseAway, HubscopeError, QueryFailed, QueryRefused, QueryTimedOut
from hubscope.sqlgate.ahead import (
    BEGIN,
    PLAIN,
    PLAN_CHARS,
    Foresight,
    Heard,
    Lasting,
    Line,
    Told,
    bound,
    dial,
    statement,
)
from hubscope.sqlgate.config import Served
from hubscope.sqlgate.guard import Inspected, inspect, place
from hubscope.sqlgate.policy import QUERIES, Approved, Foreseen, approve, foresee, foretold
from hubscope.sqlgate.turns import Turns
from hubscope.sqlgate.values import Shape, as_parameter, column, shape

PAGE_BYTES: Final = 8 * 1024 * 1024
"""Most that one page of rows can weigh, by construction: rows per page times columns times the longest value."""

PAGE_ROWS: Final = 1_000
VERDICTS: Final = 256
DESCRIPTIONS: Final = 256
DESCRIPTION_S: Final = 60.0
DESCRIPTION_BYTES: Final = 20_000
END_TIMEOUT_S: Final = 2.0
LONG_TEXT: Final = 1_000
"""Characters; the guard takes up to 10 microseconds for each."""
_READER: Final = ThreadPoolExecutor(1, "guard")
"""One thread: with more, the event loop would get its turn less often."""
_CUSTOM_PLAN: Final = "SET LOCAL plan_cache_mode = force_custom_plan"
_NO_NAMES: Final = ("{}", "{}", "f", "{}", "{}", "{}", "{}", "{}", "{}", "true")
_PARAMETER: Final = re.compile(r"\$\d+")

_AWAY: Final[tuple[type[Exception], ...]] = (
    OSError,
    ssl.SSLError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


_First = tuple[list[Any], bool]
"""The first rows of a query that went out with what went ahead of it, and whether they are all."""


@dataclass(frozen=True, slots=True)
class Database:
    """What was found out about a database when it was first reached.

    Attributes:
        name, role: whom we are.
        version: server_version_num.
        encoding: of the database.
        path: search path of queries, without pg_catalog, which comes first, and pg_temp, which comes last.
    """

    name: str
    role: str
    version: int
    encoding: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Rows of one query.

    Attributes:
        columns: name and type of each; a name may stand there twice.
        rows: values as `values.shape` says.
        truncated: why there may be more, with what to do; None when this is all.
        cut: row and column (0-based) of values that were cut.
        reads: the relations that were read, views and what stands behind them.
        elapsed_ms: from the call to the answer.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: str | None
    cut: tuple[tuple[int, int], ...]
    reads: tuple[str, ...]
    elapsed_ms: float


@dataclass(slots=True)
class _Verdict:
    approved: Approved
    until: float


@dataclass(slots=True)
class _Taken:
    """Rows so far, and what they weigh."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    cut: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Described:
    """What was found out about a text, for the server to say again.

    Attributes:
        parameters, columns: as the driver tells them.
        description: the server's own words for them, which name columns, types and tables by oid.
        answer: the same with the answer to the policy's question before it; empty where that was not asked.
        approved: what came of that answer.
        foreseen: the question.
        plan: what runs when there are no parameters.
        lasting: what may stay of it on the server.
        until: when it is no longer remembered, in seconds of the monotonic clock.
    """

    parameters: Sequence[Any]
    columns: Sequence[Any]
    description: bytes = b""
    answer: bytes = b""
    approved: Approved | None = None
    foreseen: Foreseen | None = None
    plan: _Plan | None = None
    lasting: Lasting | None = None
    until: float = 0.0

    @staticmethod
    def of(
        prepared: Any, heard: Heard | None = None, approved: Approved | None = None, foreseen: Foreseen | None = None
    ) -> _Described:
        """What a prepared statement tells."""
        parameters, columns = prepared.get_parameters(), prepared.get_attributes()
        if heard is None:
            return _Described(parameters, columns)
        until = time.monotonic() + DESCRIPTION_S
        answer = heard.answer if foreseen else b""
        return _Described(parameters, columns, heard.description, answer, approved, foreseen, until=until)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What runs.

    Attributes:
        shapes: of its columns.
        text, arguments: the statement.
        page: most rows at a time.
        sent: the types of its columns, as they are sent.
    """

    shapes: list[Shape]
    text: str
    arguments: list[str | None]
    page: int
    sent: tuple[str, ...]


class _Again:
    """A check that a text has passed before, to be made once more while the database is at work on it.

    Args:
        check: what tells what it names now.
    """

    def __init__(self, check: Callable[[], Inspected]) -> None:
        self._check = check
        self._found: Inspected | Exception | None = None

    def __call__(self) -> None:
        """Make it, if it was not made."""
        if self._found is None:
            try:
                self._found = self._check()
            except Exception as error:  # told to whom asks for what came of it
                self._found = error

    def passed(self) -> Inspected:
        """What came of it.

        Raises:
            QueryRefused.
        """
        self()
        if isinstance(self._found, Inspected):
            return self._found
        assert self._found is not None
        raise self._found


@dataclass(slots=True)
class _Call:
    """One call on its way.

    Attributes:
        sql, parameters: as they came.
        inspected: what the text names; None until it was checked.
        known: the verdict of both gates, where that is remembered.
        last: what was found out about the same text less than DESCRIPTION_S ago.
        again: the check of this call, where `inspected` is of an earlier one: nothing is told before it is made.
    """

    sql: str
    parameters: Sequence[Any]
    inspected: Inspected | None
    known: Approved | None
    last: _Described | None
    again: _Again | None = None

    def passed(self) -> Inspected:
        """What the text names, checked in this call.

        Raises:
            QueryRefused.
        """
        if self.again:
            self.inspected = self.again.passed()
            self.again = None
        assert self.inspected is not None
        return self.inspected


class Gate:
    """A database, served: queries go in as text, answers come out as rows, and nothing else happens.

    Attributes:
        served: policy and limits.
        turns: who runs and who waits.
        database: what is known of it; None until it was first reached.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        limits = served.limits
        self.turns = Turns(limits.connections, limits.waiting)
        self.database: Database | None = None
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._verdicts: OrderedDict[str, _Verdict] = OrderedDict()
        self._begin_with("BEGIN READ WRITE" if served.writable else "BEGIN READ ONLY")
        self._end = "COMMIT" if served.writable else "ROLLBACK"
        self._ending: set[asyncio.Task[None]] = set()
        self._foresight = Foresight()
        self._described: OrderedDict[str, _Described] = OrderedDict()

    def _begin_with(self, *statements: str) -> None:
        """The statements that every transaction begins with."""
        self._first: tuple[str, ...] = statements
        self._first_messages = (bound(BEGIN, ()), *map(statement, statements[1:]))

    # Life

    async def close(self) -> None:
        """Close every connection; running queries are cancelled on the server."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(END_TIMEOUT_S):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    def connections(self) -> tuple[int, int]:
        """Open and idle connections now."""
        return (0, 0) if self._pool is None else (self._pool.get_size(), self._pool.get_idle_size())

    async def reachable(self) -> bool:
        """Whether the database answers now; with every connection at work it does, and there is none to ask with."""
        if self.turns.running >= self.served.limits.connections and self.connections()[0] > 0:
            return True
        try:
            async with asyncio.timeout(self.served.limits.connection_timeout_ms / 1000), self.borrowed() as connection:
                await connection.fetchval("SELECT 1")
        except (HubscopeError, TimeoutError):
            return False
        return True

    async def _opened(self) -> asyncpg.Pool:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self.database = await self._look()
                    self._pool = await self._make_pool(self.database)
        return self._pool

    async def _look(self) -> Database:
        limits = self.served.limits
        connection = await asyncpg.connect(
            self.served.dsn, timeout=limits.connection_timeout_ms / 1000, server_settings=self._session([])
        )
        try:
            row = await connection.fetchrow(QUERIES["session"])
        finally:
            await connection.close(timeout=END_TIMEOUT_S)
        path = self.served.policy.allowed_schemas or tuple(row["path"] or ())
        return Database(row["database"], row["role"], row["version"], row["encoding"], tuple(path))

    def _session(self, path: Sequence[str]) -> dict[str, str]:
        """Settings of every connection. They come with the connection, so ROLLBACK and RESET return to them."""
        limits = self.served.limits
        settings = {
            "application_name": "hubscope sql-mcp",
            "default_transaction_read_only": "off" if self.served.writable else "on",
            "standard_conforming_strings": "on",
            "statement_timeout": str(min(limits.statement_timeout_ms, limits.timeout_ms)),
            "lock_timeout": str(min(limits.statement_timeout_ms, limits.timeout_ms)),
            "idle_in_transaction_session_timeout": str(limits.timeout_ms + 5_000),
            "row_security": "on",
            "timezone": "UTC",
            "datestyle": "ISO, YMD",
            "intervalstyle": "postgres",
            "bytea_output": "hex",
            "extra_float_digits": "1",
            "xmloption": "content",
            "jit": "off",
            # Ours are planned once (see `_prepared`), a query of others each time, with its parameters: `prepare`.
            "plan_cache_mode": "force_generic_plan",
        }
        if path:
            quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in path)
            settings["search_path"] = f"pg_catalog, {quoted}, pg_temp"
        return settings | dict(self.served.session)

    async def _make_pool(self, database: Database) -> asyncpg.Pool:
        limits = self.served.limits

        async def let_go(_connection: asyncpg.Connection) -> None:
            """`borrowed` has done it."""

        return await asyncpg.create_pool(
            self.served.dsn,
            min_size=0,
            max_size=limits.connections,
            max_inactive_connection_lifetime=limits.idle_timeout_ms / 1000,
            timeout=limits.connection_timeout_ms / 1000,
            server_settings=self._session(database.path or ("pg_temp",)),
            max_cached_statement_lifetime=0,
            connect=dial,
            init=partial(_prepared, self._first[0]),
            reset=let_go,
        )

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection inside a READ ONLY transaction, rolled back when the block ends.

        Raises:
            DatabaseAway, QueryTimedOut, QueryFailed: as the database's own errors are told.
        """
        async with self._lent() as connection:
            await connection.execute("; ".join(self._first))
            yield connection

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[asyncpg.Connection]:
        """The same without the transaction, which is for the block to begin."""
        try:
            pool = await self._opened()
            if self._ending and pool.get_idle_size() == 0:  # sooner than another connection is made
                await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
            # The pool's own timeout costs a task each time.
            async with asyncio.timeout(self.served.limits.connection_timeout_ms / 1000):
                connection = await pool.acquire()
            try:
                try:
                    yield connection
                except asyncpg.InvalidSQLStatementNameError:  # somebody has closed what was prepared there
                    connection.terminate()
                    raise
                finally:
                    await self._finish(connection)
            finally:
                await pool.release(connection)
        except HubscopeError:
            raise
        except asyncpg.QueryCanceledError as error:
            raise self._timed_out() from error
        except (asyncpg.InvalidSQLStatementNameError, *_AWAY) as error:
            raise away(error) from error
        except asyncpg.PostgresError as error:
            raise failed(error) from error

    async def _finish(self, connection: asyncpg.Connection) -> None:
        """End the transaction, whatever came of it; a connection that cannot is thrown away.

        ROLLBACK undoes settings, too; session locks, which only functions of the operator's could take, it does not.
        """
        try:
            if connection.is_closed():
                return
        except asyncpg.InterfaceError:  # it was thrown away already
            return
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await connection.execute(f"{self._end}; SELECT pg_catalog.pg_advisory_unlock_all()")
        except (TimeoutError, asyncpg.PostgresError, *_AWAY):
            connection.terminate()

    def _timed_out(self) -> QueryTimedOut:
        return QueryTimedOut(
            f"the query took longer than {self.served.limits.timeout_ms} ms and was stopped on the server;"
            " ask for less, or see analyze_query"
        )

    # Queries

    @asynccontextmanager
    async def deadline(self, client: str) -> AsyncIterator[None]:
        """A turn, within the time that one call has. Leaving late cancels what runs on the server.

        Raises:
            QueryTimedOut, QueryQueueFull.
        """
        async with self._in_time(), self.turns.turn(client):
            yield

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.served.limits.timeout_ms / 1000):
                yield
        except TimeoutError as error:
            raise self._timed_out() from error

    def check(self, sql: str) -> Inspected:
        """The guard's part of the verdict. See `guard.inspect`."""
        inspected = inspect(
            sql,
            max_bytes=self.served.limits.query_bytes,
            allowed_functions=self.served.policy.allowed_functions,
        )
        if self.database is not None and self.database.encoding != "UTF8" and not inspected.names_are_ascii():
            # Another encoding folds and cuts such names in another way than this parser.
            raise QueryRefused("names with letters beyond ASCII are not served from a database that is not in UTF-8")
        return inspected

    async def checked(self, sql: str) -> Inspected:
        """`check`; a long text is read beside the event loop, which others are served by, too."""
        if len(sql) < LONG_TEXT:
            return self.check(sql)
        return await asyncio.get_running_loop().run_in_executor(_READER, self.check, sql)

    def remembered(self, sql: str) -> Approved | None:
        """What both gates said of the same text a moment ago. A refusal is not remembered."""
        known = self._verdicts.get(sql)
        return known.approved if known is not None and known.until > time.monotonic() else None

    async def approve(self, connection: asyncpg.Connection, sql: str, inspected: Inspected) -> Approved:
        """The second gate's verdict, remembered for HUBSCOPE_SQL_VERDICT_SECONDS.

        Raises:
            QueryRefused.
        """
        approved = await approve(connection, inspected, self.served.policy)
        self._remember(sql, approved)
        return approved

    def _remember(self, sql: str, approved: Approved) -> None:
        if self.served.limits.verdict_s > 0:
            self._verdicts[sql] = _Verdict(approved, time.monotonic() + self.served.limits.verdict_s)
            self._verdicts.move_to_end(sql)
            while len(self._verdicts) > VERDICTS:
                self._verdicts.popitem(last=False)

    async def query(self, sql: str, parameters: Sequence[Any] = (), *, client: str = "") -> Result:
        """Run one query.

        Args:
            sql: one SELECT.
            parameters: values of $1, $2 ... as JSON has them; the server's own types convert them.
            client: whose turn it is.

        Raises:
            QueryRefused: it may not run. QueryFailed: the database could not run it. QueryTimedOut, QueryQueueFull,
            DatabaseAway.
        """
        started = time.perf_counter()
        call = self._begun(sql, parameters)
        if call.inspected is None:  # what is refused needs no connection and no turn
            call.inspected = await self.checked(sql)
        async with self._in_time(), AsyncExitStack() as held:
            await held.enter_async_context(self.turns.turn(client))
            connection = await held.enter_async_context(self._lent())
            approved, plan, first = await self._planned(connection, call)
            taken, truncated = await self._take(Line.of(connection), plan, first)
            if not self.served.writable:  # what is only rolled back need not keep the answer waiting
                self._end_behind(held.pop_all())
        return Result(
            tuple((each.name, each.type) for each in plan.shapes),
            tuple(taken.rows),
            truncated,
            tuple(taken.cut),
            approved.reads,
            (time.perf_counter() - started) * 1000,
        )

    def _begun(self, sql: str, parameters: Sequence[Any]) -> _Call:
        """What is known of a text that comes again."""
        last = self._described.get(sql)
        if last is not None and last.until < time.monotonic():
            last = None
        known = self.remembered(sql)
        if known:
            return _Call(sql, parameters, known.inspected, known, last)
        if last and last.approved and len(sql) < LONG_TEXT:
            return _Call(sql, parameters, last.approved.inspected, None, last, _Again(partial(self.check, sql)))
        return _Call(sql, parameters, None, None, last)

    async def _planned(self, connection: asyncpg.Connection, call: _Call) -> tuple[Approved, _Plan, _First | None]:
        """Begin the transaction, ask the policy, let the server parse what it approved, and lay out what runs.

        In one wait, with the first rows, where the same text was described before and is described in the same way now;
        in two, where the policy's question can go ahead; else in four.

        Raises:
            QueryRefused, QueryFailed.
        """
        line = Line.of(connection)
        last, inspected, parameters = call.last, call.inspected, call.parameters
        assert inspected is not None
        lasting = last.lasting if last else None
        # A plan that stays is worth more than not to ask, and what is asked anew need not be remembered.
        foreseen = None if call.known and not lasting else self._foreseen(inspected, last)
        if foreseen:
            call.known = None
        if not call.known and not foreseen:
            return await self._asked_anew(connection, call, self._first)
        settings = (_CUSTOM_PLAN,) if parameters else ()
        ahead = [*self._first_messages, *([foreseen.asked] if foreseen else []), *map(statement, settings)]
        plan = self._expected(last, inspected, parameters)
        if last and plan:
            expected = last.answer if foreseen else b""
            told = await line.at_once(
                ahead, inspected.sql, plan.text, plan.sent, plan.arguments, plan.page, expected,
                lasting if foreseen else None, call.again,
            )  # fmt: skip
            same = call.passed() == inspected
            if told:
                found = self._confirmed(call, told, foreseen, last) if same else None
                if found and not isinstance(told.first, asyncpg.PostgresError):
                    return found, plan, told.first
                if isinstance(told.first, asyncpg.PostgresError) and (
                    found or isinstance(told.first, (asyncpg.QueryCanceledError, *_AWAY))
                ):
                    raise told.first
                self._described.pop(call.sql, None)
                return await self._asked_anew(connection, call, ("ROLLBACK", *self._first))
        inspected = call.passed()
        heard, prepared = await line.prepare(ahead, inspected.sql)
        approved = self._verdict(call, foreseen, heard)
        if isinstance(prepared, (asyncpg.QueryCanceledError, *_AWAY)):
            raise prepared
        if approved and not isinstance(prepared, asyncpg.PostgresError):
            described = _Described.of(prepared, heard, approved, foreseen)
            plan = self._plan(described, inspected, parameters)
            if not parameters:
                may_last = approved.lasting and not self.served.writable and len(plan.text) <= PLAN_CHARS
                described = replace(described, plan=plan, lasting=Lasting.of(heard) if may_last else None)
            self._keep(call.sql, described)
            return approved, plan, None
        if approved and isinstance(prepared, asyncpg.PostgresError) and len(heard.completed) == len(ahead):
            raise failed(prepared, inspected.sql) from prepared
        return await self._asked_anew(connection, call, ("ROLLBACK", *self._first))

    async def _asked_anew(
        self, connection: asyncpg.Connection, call: _Call, begin: Sequence[str]
    ) -> tuple[Approved, _Plan, None]:
        """The same, one request after the other: where the policy has to look twice, or nothing was as expected."""
        inspected = call.passed()
        await connection.execute("; ".join(begin))
        approved = call.known or await self.approve(connection, call.sql, inspected)
        self._foresight.learn(approved.closer)
        if call.parameters:
            await connection.execute(_CUSTOM_PLAN)
        prepared = await describe(connection, inspected)
        return approved, self._plan(_Described.of(prepared), inspected, call.parameters), None

    def _confirmed(self, call: _Call, told: Told, foreseen: Foreseen | None, last: _Described) -> Approved | None:
        """The verdict, where the server described the text as the last time; None where all has to be asked anew."""
        if told.heard is None:  # byte by byte, so what came of it the last time comes of it now
            if last.approved:
                self._remember(call.sql, last.approved)
            return last.approved
        approved = self._verdict(call, foreseen, told.heard)
        return approved if told.heard.description == last.description else None

    def _verdict(self, call: _Call, foreseen: Foreseen | None, heard: Heard) -> Approved | None:
        """What came of the policy's question that went ahead: None where it has to be asked again."""
        if foreseen is None:
            return call.known
        if len(heard.completed) <= len(self._first):
            return None
        approved = foretold(foreseen, heard.rows, self.served.policy)
        if approved:
            self._remember(call.sql, approved)
        return approved

    def _plan(self, described: _Described, inspected: Inspected, parameters: Sequence[Any]) -> _Plan:
        limits = self.served.limits
        shapes, text, arguments = fit(described, inspected, parameters, limits.value_chars, limits.rows)
        wide = sum(each.wide for each in shapes)
        page = max(1, min(PAGE_ROWS, limits.rows + 1, PAGE_BYTES // max(1, wide * 4 * limits.value_chars)))
        return _Plan(shapes, text, arguments, page, tuple(each.sent for each in shapes))

    def _expected(self, last: _Described | None, inspected: Inspected, parameters: Sequence[Any]) -> _Plan | None:
        """What will run if the text means what it meant the last time, for the server to confirm."""
        if last is None or self.served.writable:
            return None
        if last.plan and not parameters:
            return last.plan
        try:
            return self._plan(last, inspected, parameters)
        except QueryRefused:  # that is to be told by what it means now
            return None

    def _keep(self, sql: str, described: _Described) -> None:
        if len(sql) + len(described.answer) > DESCRIPTION_BYTES:
            return
        self._described[sql] = described
        self._described.move_to_end(sql)
        while len(self._described) > DESCRIPTIONS:
            self._described.popitem(last=False)

    def _foreseen(self, inspected: Inspected, last: _Described | None) -> Foreseen | None:
        """The policy's question in advance, where its answer is likely to be enough."""
        path = self.database.path if self.database else ()
        foreseen = (last and last.foreseen) or foresee(inspected, self.served.policy, path)
        return None if foreseen is None or self._foresight.knows(foreseen.keys) else foreseen

    def _end_behind(self, held: AsyncExitStack) -> None:
        """End the transaction and give back connection and turn while the answer is on its way."""
        task = asyncio.create_task(held.aclose(), name="end of a query")
        self._ending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # the connection was thrown away and the next one says why

    async def _take(self, line: Line, plan: _Plan, first: _First | None) -> tuple[_Taken, str | None]:
        """Rows, page by page, until the query ends or a limit is reached."""
        taken = _Taken()
        if first is not None and first[1]:
            why = self._add_page(first[0], plan.shapes, taken) if first[0] else None
        else:
            why = None
            async with aclosing(line.rows(plan.text, plan.sent, plan.arguments, plan.page, first)) as pages:
                async for records in pages:
                    why = self._add_page(records, plan.shapes, taken)
                    if why:
                        break
        if taken.cut and why is None:
            why = (
                f"all rows, but {len(taken.cut)} values were cut to {self.served.limits.value_chars} characters (`cut`"
                " says which row and column); ask for parts of them with substr, or for keys of a JSON value"
            )
        return taken, why

    def _add_page(self, records: Sequence[Any], shapes: Sequence[Shape], taken: _Taken) -> str | None:
        """Add these rows; why they are the last ones, if a limit is reached."""
        limits = self.served.limits
        room = limits.rows - len(taken.rows)
        if not self._add(records[:room], shapes, taken):
            return (
                f"the first {len(taken.rows)} rows: the answer is limited to {limits.result_bytes} bytes;"
                " ask for fewer columns or rows"
            )
        if len(records) > room:
            return (
                f"the first {limits.rows} rows, which is the most in one answer; narrow it down, aggregate,"
                " or page with ORDER BY and a WHERE beyond the last row"
            )
        return None

    def _add(self, records: Sequence[Any], shapes: Sequence[Shape], taken: _Taken) -> bool:
        """Add these rows, or as many of them as have room; False when some have not. The first row always has."""
        limits = self.served.limits
        columns = [
            column(values, each, limits.value_chars)
            for values, each in zip(zip(*records, strict=True), shapes, strict=False)
        ]
        size = taken.size + sum(each.size for each in columns)
        if size > limits.result_bytes and (taken.rows or len(records) > 1):
            return len(records) > 1 and all(self._add([record], shapes, taken) for record in records)
        begin = len(taken.rows)
        taken.size = size
        taken.cut.extend(sorted((begin + at, i) for i, each in enumerate(columns) for at in each.cut))
        taken.rows.extend(zip(*(each.values for each in columns), strict=True) if columns else [()] * len(records))
        return True


async def _prepared(begin: str, connection: asyncpg.Connection) -> None:
    """A new connection: check that texts mean there what they mean here, and plan the policy's statements once.

    Their plans must not depend on how many relations the database has, so they are made of index lookups.

    Raises:
        DatabaseAway: quotes mean something else on the server.
    """
    if connection.get_settings().standard_conforming_strings != "on":
        raise DatabaseAway("the server does not keep standard_conforming_strings on")
    others = "enable_hashjoin", "enable_mergejoin", "enable_seqscan"
    await connection.execute("".join(f"SET {name} = off;" for name in others))
    line = Line.of(connection)
    await line.set_up(connection, **{PLAIN: QUERIES["plain"], BEGIN: begin})
    await line.prepare([bound(PLAIN, _NO_NAMES)], "SELECT 1")
    await connection.fetch(QUERIES["plain"], [], [], False, [], [], [], [], [], [], "true")
    await connection.fetch(QUERIES["resolve"], *([] for _ in range(9)), False)
    await connection.execute("".join(f"RESET {name};" for name in others))


async def describe(connection: asyncpg.Connection, inspected: Inspected) -> Any:
    """A query prepared as it came, to learn its types.

    Raises:
        QueryFailed: the database finds a mistake in it.
    """
    try:
        return await connection.prepare(inspected.sql, name="")
    except (asyncpg.QueryCanceledError, *_AWAY):
        raise
    except asyncpg.PostgresError as error:
        raise failed(error, inspected.sql) from error


def fit(
    described: _Described, inspected: Inspected, parameters: Sequence[Any], value_chars: int, rows: int
) -> tuple[list[Shape], str, list[str | None]]:
    """The statement that runs.

    Args:
        described: the query as it came.

    Returns:
        The shapes of its columns, the text to run, and its arguments.

    Raises:
        QueryRefused: the parameters do not fit.
    """
    wanted = described.parameters
    if len(wanted) != len(parameters):
        raise QueryRefused(
            f"the query has {len(wanted)} parameters"
            + (f" ($1 to ${len(wanted)})" if wanted else "")
            + f", params has {len(parameters)} values"
        )
    arguments = [
        as_parameter(value, f"params[{i}]", each.name, each.kind)
        for i, (value, each) in enumerate(zip(parameters, wanted, strict=True))
    ]
    shapes = [
        shape(each.name, each.type.schema, each.type.name, each.type.kind, value_chars) for each in described.columns
    ]
    return shapes, wrap(inspected, [_type_sql(each) for each in wanted], shapes, rows + 1), arguments


async def typed_query(connection: asyncpg.Connection, inspected: Inspected) -> tuple[str, Sequence[Any]]:
    """The query with parameters that are converted by the server's own types, and those types."""
    wanted = (await connection.prepare(inspected.sql)).get_parameters()
    return with_typed_parameters(inspected, [_type_sql(each) for each in wanted]), wanted


def _type_sql(each: Any) -> str:
    """A type as it can be cast to: qualified, without a modifier."""
    name = each.name
    if each.kind == "array" and name.endswith("[]"):
        return f'"{each.schema}"."{name[:-2]}"[]'
    return f'"{each.schema}"."{name}"'


def with_typed_parameters(inspected: Inspected, types: Sequence[str]) -> str:
    """The query with each `$n` as text that the type's own input function reads."""
    text, end = [], len(inspected.sql)
    for at, number in reversed(inspected.parameters):
        match = _PARAMETER.match(inspected.sql, at)
        if match is None:
            raise QueryRefused("a parameter stands where it cannot be found again")
        text.append(inspected.sql[match.end() : end])
        text.append(f"((${number})::pg_catalog.text::{types[number - 1]})")
        end = at
    text.append(inspected.sql[:end])
    return "".join(reversed(text))


def wrap(inspected: Inspected, types: Sequence[str], shapes: Sequence[Shape], limit: int) -> str:
    """The statement that runs: the query as a subquery whose columns are asked for one by one.

    The query parsed as one statement by itself, so its parentheses, quotes and comments are closed; the line break ends
    a comment that runs to the end of its line.
    """
    inner = with_typed_parameters(inspected, types)
    names = [f"c{i}" for i in range(1, len(shapes) + 1)]
    columns = ", ".join(each.expression.replace("{}", f"q.{name}") for each, name in zip(shapes, names, strict=True))
    alias = f"q ({', '.join(names)})" if names else "q"
    return f"SELECT {columns} FROM (\n{inner}\n) AS {alias} LIMIT {limit}"


def away(error: Exception) -> DatabaseAway:
    """Why the database cannot be used, without the driver's own words, which may name hosts and users."""
    reasons: tuple[tuple[type[Exception], str], ...] = (
        (asyncpg.InvalidAuthorizationSpecificationError, "it refuses our user, password or certificate"),
        (asyncpg.InvalidCatalogNameError, "it has no database of that name"),
        (asyncpg.TooManyConnectionsError, "it has no connection left for us"),
        (ssl.SSLCertVerificationError, "its certificate does not pass SSL_MODE"),
        (asyncpg.ClientConfigurationError, "DATABASE_URL or the SSL_* settings do not fit together"),
        (ConnectionRefusedError, "nothing listens there"),
        (TimeoutError, "it does not answer"),
    )
    reason = next((words for kind, words in reasons if isinstance(error, kind)), type(error).__name__)
    return DatabaseAway(f"the database cannot be used now: {reason}")


def failed(error: asyncpg.PostgresError, sql: str | None = None) -> QueryFailed:
    """The server's error as one line: message, place, hint and SQLSTATE. Its detail may hold rows and is not told."""
    told = str(error.args[0] if error.args else error).splitlines()[0]
    at = getattr(error, "position", None)
    where = place(sql, int(at) - 1) if sql is not None and at is not None else ""
    hint = getattr(error, "hint", None)
    return QueryFailed(
        f"{told}{where}" + (f"; {hint}" if hint else "") + f" [SQLSTATE {error.sqlstate}]", sqlstate=error.sqlstate
    )
