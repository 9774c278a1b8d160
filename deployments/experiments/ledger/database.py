"""Opening the ledger's database: SQLite or PostgreSQL by URL, its tables and their version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from deployments.experiments.ledger.schema import SCHEMA_VERSION, Base, LedgerVersion
from deployments.settings import ENVIRONMENT, from_environment
from engine.errors import ConfigError

BUSY_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 30_000
POSTGRES_NAMES = ("postgresql", "postgres", "postgresql+psycopg")


def open_database(url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Engine:
    """An engine that connects anew for every use, so that a file that was replaced and a server that was restarted are
    noticed, and nothing is left open. ConfigError: a URL of another kind, or a driver that is missing."""
    parsed = parse_url(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed, busy_timeout_s)
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            poolclass=NullPool,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
            },
        )
    except ImportError as error:
        raise ConfigError(
            f"The ledger {shown(url)} needs the package {error.name}: install lacuna-serve[postgres].", "ledger"
        ) from error


def shown(url: str) -> str:
    """The URL without its password; ``env:NAME`` as it is."""
    if url.startswith(ENVIRONMENT):
        return url
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(not a URL)"


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite ledger, None for other databases."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database.removeprefix("file:")).expanduser()


def prepare(engine: Engine) -> None:
    """Make the tables where there are none. ConfigError: they are of a newer version than this program's.

    Two processes may do it at once: the slower one finds the tables of the other at its second try.
    """
    try:
        _prepare(engine)
    except SQLAlchemyError:
        _prepare(engine)


def check_version(connection: Connection) -> bool:
    """False where there are no tables; ConfigError where they are newer than this program."""
    if not inspect(connection).has_table(LedgerVersion.__tablename__):
        return False
    version = connection.scalar(select(LedgerVersion.version))
    if version is not None and version > SCHEMA_VERSION:
        raise ConfigError(
            f"The ledger has schema version {version}, this program knows {SCHEMA_VERSION}: update lacuna-serve or "
            "name another ledger.",
            "ledger",
        )
    return version is not None


def _prepare(engine: Engine) -> None:
    with engine.begin() as connection:
        if check_version(connection):
            return
        Base.metadata.create_all(connection)
        connection.execute(insert(LedgerVersion).values(version=SCHEMA_VERSION))


def parse_url(url: str) -> URL:
    """The URL, also the one behind ``env:NAME``. ConfigError: no database that can hold a ledger."""
    text = from_environment(url, "ledger")
    try:
        parsed = make_url(url if text is None else text)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError):
        parsed = None
    if parsed is None or parsed.drivername not in ("sqlite", *POSTGRES_NAMES):
        raise ConfigError(
            "The ledger must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME (or env:NAME of a variable with "
            f"that), got {shown(url)}.",
            "ledger",
        )
    return parsed


def _sqlite(url: URL, busy_timeout_s: float) -> Engine:
    if url.database and not url.database.startswith("file:"):
        url = url.set(database=str(Path(url.database).expanduser()))
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": busy_timeout_s})
    event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, record: object) -> None:
    """Write-ahead log: readers and the writer do not block each other; a killed process loses nothing committed."""
    del record
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
