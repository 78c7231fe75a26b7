"""Transactions as Snowflake has them, on DuckDB.

One writer at a time, and a failed statement undoes only itself. DuckDB alone would do neither: of
two writers to one table it fails one with `Conflict on update!`, where Snowflake lets it wait; and
after an error it gives the whole transaction up, so that a COMMIT keeps nothing, where Snowflake
keeps what was written before.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

from fakesnow.conn import FakeSnowflakeConnection
from starlette.concurrency import run_in_threadpool

from standin.engine import sql_errors
from standin.errors import SqlError
from standin.results import Result

Action = Callable[[], Result]
LOCK_TIMEOUT = 625
TRANSACTION_LOST = 90232


class WriteLock:
    """Held from a transaction's first write to its end; waited for without keeping a thread."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self._lock = asyncio.Lock()
        self._holder: Transaction | None = None

    async def acquire(self, transaction: Transaction) -> None:
        """Wait for it, unless the transaction holds it. Raises SqlError after wait_s seconds."""
        if self._holder is transaction:
            return
        try:
            async with asyncio.timeout(self.wait_s):
                await self._lock.acquire()
        except TimeoutError:
            raise SqlError(
                f"Waited {self.wait_s:g} s for {self._holder or 'another writer'}, and gave up."
                " Nothing was changed. COMMIT or ROLLBACK there (or close that session),"
                " then run the statement again.",
                LOCK_TIMEOUT,
                "57014",
            ) from None
        self._holder = transaction

    def release(self, transaction: Transaction) -> None:
        """Let the next writer in, if it is this transaction that writes."""
        if self._holder is transaction:
            self._holder = None
            self._lock.release()


class Transaction:
    """The current transaction of one session, if there is one.

    DuckDB's own transaction begins with the first write, so that reads before it see what others
    have committed, and ends with an error; what was written before the error is then written again
    from the journal.
    """

    def __init__(self, connection: FakeSnowflakeConnection, lock: WriteLock, label: str) -> None:
        self._duck = connection._duck_conn
        self._lock = lock
        self._label = label
        self.autocommit = True
        self.is_open = False
        self._writing = False
        self._since = dt.datetime.now(dt.UTC)
        self._journal: list[tuple[Action, int | None]] = []
        self._on_commit: list[Callable[[], None]] = []
        self._lost: str | None = None

    def __str__(self) -> str:
        return f"the transaction of {self._label}, open since {self._since:%H:%M:%S} UTC"

    def begin(self) -> None:
        """BEGIN; within an open transaction it does nothing, as in Snowflake."""
        self._check_not_lost()
        if not self.is_open:
            self.is_open = True
            self._since = dt.datetime.now(dt.UTC)

    async def commit(self) -> None:
        """COMMIT; raises if the transaction was lost before."""
        self._check_not_lost(forget=True)
        if self._writing:
            try:
                await self._in_thread(self._duck.commit)
            except SqlError:
                await self._abandon("COMMIT failed")
                raise
        after = self._on_commit
        self._on_commit = []
        self._close()
        for action in after:
            await run_in_threadpool(action)

    async def rollback(self) -> None:
        """ROLLBACK; also the way on after a lost transaction."""
        if self._writing:
            await self._in_thread(self._duck.rollback)
        self._lost = None
        self._close()

    async def lose(self, reason: str) -> None:
        """Roll back behind the client's back; its next statement hears of it."""
        await self.rollback()
        self._lost = reason

    async def read(self, action: Action) -> Result:
        """Run a statement that changes nothing."""
        self._check_not_lost()
        try:
            return await run_in_threadpool(action)
        except SqlError:
            # To DuckDB an error of a SELECT is an error too: the transaction is gone.
            if self._writing:
                await self._write_again()
            raise

    async def write(self, action: Action, on_commit: Callable[[], None] | None = None) -> Result:
        """Run a statement that changes rows; on_commit is called once that is certain.

        action: may be run again, after the error of a later statement.
        """
        self._check_not_lost()
        alone = self.autocommit and not self.is_open
        if not self.is_open:
            self.begin()
        try:
            result = await self._write(action)
        except BaseException:
            if alone:
                await self.rollback()  # nobody else would
            raise
        if on_commit:
            self._on_commit.append(on_commit)
        if alone:
            await self.commit()
        return result

    async def _write(self, action: Action) -> Result:
        await self._lock.acquire(self)
        try:
            if not self._writing:
                await self._in_thread(self._duck.begin)
                self._writing = True
            result = await run_in_threadpool(action)
        except SqlError:
            await self._write_again()
            raise
        self._journal.append((action, result.affected))
        return result

    async def outside(self, action: Action) -> Result:
        """Run DDL: it commits the open transaction, then stands alone."""
        await self.commit()
        await self._lock.acquire(self)
        try:
            return await run_in_threadpool(action)
        finally:
            self._lock.release(self)

    async def _write_again(self) -> None:
        """After an error: back to where the transaction was before the failed statement.

        There is no way back but forward: DuckDB has no savepoints. The lock was held all the time,
        so nobody else has written, and a statement that changes another number of rows than at
        first holds random() or the time. Then nothing is kept, and the client is told so.
        """
        if self._writing:
            await self._in_thread(self._duck.rollback)
            self._writing = False
        if not self._journal:
            self._lock.release(self)
            return
        await self._in_thread(self._duck.begin)
        self._writing = True
        for action, affected in self._journal:
            try:
                result = await run_in_threadpool(action)
            except SqlError as error:
                await self._abandon(f"an earlier statement could not be repeated: {error.msg}")
                return
            if result.affected != affected:
                await self._abandon(
                    "an earlier statement, repeated, changed another number of rows"
                )
                return

    async def _abandon(self, why: str) -> None:
        await self.lose(f"after a failed statement the transaction could not be kept ({why})")

    async def _in_thread(self, action: Callable[[], object]) -> None:
        def guarded() -> None:
            with sql_errors():
                action()

        await run_in_threadpool(guarded)

    def _close(self) -> None:
        self.is_open = False
        self._writing = False
        self._journal = []
        self._on_commit = []
        self._lock.release(self)

    def _check_not_lost(self, forget: bool = False) -> None:
        if not self._lost:
            return
        message = (
            f"The transaction was rolled back: {self._lost}."
            " Nothing of it is kept. ROLLBACK, then start again."
        )
        if forget:
            self._lost = None
        raise SqlError(message, TRANSACTION_LOST, "40000")
