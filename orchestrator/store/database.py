"""Where keys, limits and usage are kept: one SQLite file, named by a URL.

Another kind of database is another branch of `open_database`; the stores speak plain SQL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from orchestrator.errors import ConfigError
from orchestrator.store.home import home

STORE_ENV = "ORCHESTRATOR_STORE"
FILE_NAME = "keys.db"
SCHEMA_VERSION = 1
# How long a command or the front waits for the other one's transaction.
BUSY_S = 5.0
_PREFIX = "sqlite:///"
_SCHEMA = """
CREATE TABLE keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, models TEXT, limits TEXT NOT NULL,
    created_s INTEGER NOT NULL, expires_s INTEGER, revoked_s INTEGER
);
CREATE UNIQUE INDEX names_in_use ON keys (name) WHERE revoked_s IS NULL;
CREATE TABLE secrets (
    digest TEXT PRIMARY KEY, key_id TEXT NOT NULL REFERENCES keys (id), made_s INTEGER NOT NULL, until_s INTEGER
);
CREATE TABLE usage (
    day TEXT NOT NULL, key_id TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    PRIMARY KEY (day, key_id, model)
);
CREATE TABLE recent (
    key_id TEXT NOT NULL, second INTEGER NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (key_id, second)
);
CREATE TABLE told (
    session TEXT NOT NULL, key_id TEXT NOT NULL, at_s INTEGER NOT NULL,
    requests INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    PRIMARY KEY (session, key_id)
);
"""


def store_url() -> str:
    """$ORCHESTRATOR_STORE, or the file in the state folder."""
    return os.environ.get(STORE_ENV) or file_url(home() / FILE_NAME)


def file_url(path: Path) -> str:
    """The URL of a store in a file."""
    return f"{_PREFIX}{path.absolute()}"


def _path(url: str) -> Path:
    if not url.startswith(_PREFIX):
        kind = url.partition(":")[0]  # the rest may hold a password
        raise ConfigError(f"{STORE_ENV}: a store of kind {kind!r} is not supported; use {_PREFIX}/path/to/{FILE_NAME}")
    return Path(unquote(url.removeprefix(_PREFIX)))


def open_database(url: str) -> sqlite3.Connection:
    """The store, made on first use and readable by its owner only.

    Raises `ConfigError` where it cannot be opened, is damaged or was written by a newer version.
    """
    path = _path(url)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        _refuse_others(path)
        _prepare(connection, path)
    except OSError as error:
        raise ConfigError(f"cannot open the store {path}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise ConfigError(f"cannot use the store {path}: {error}; put a backup back, or move it away") from None
    return connection


def _refuse_others(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"others can read the store {path}; run: chmod 600 {path}")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise ConfigError(f"the store {path} is of a newer version ({version}, here {SCHEMA_VERSION}); update here")
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and nobody else's in between."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
