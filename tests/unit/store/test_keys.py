"""Keys as they are kept: digests only, names unique among those in force, one file that is its owner's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.store.database import file_url, open_database
from orchestrator.store.keys import FIRST_ID, KeyStore
from orchestrator.store.limits import Limits
from orchestrator.store.secrets import hash_key
from orchestrator.store.usage import Fact, UsageStore, Used

NOON = 1_800_014_400


class Clock:
    now_s = float(NOON)

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> KeyStore:
    return KeyStore(open_database(file_url(tmp_path / "keys.db")), clock)


def test_a_key_is_kept_as_its_digest(store: KeyStore, tmp_path: Path) -> None:
    key, secret = store.create("alice", "admin", ("a", "b"), Limits(tokens_per_day=5), 60)
    assert [each.digest for each in key.secrets] == [hash_key(secret)]
    again = KeyStore(open_database(file_url(tmp_path / "keys.db")), Clock())
    assert again.all() == [key]
    assert (key.models, key.limits.tokens_per_day, key.expires_s) == (("a", "b"), 5, NOON + 60)
    assert secret.encode() not in (tmp_path / "keys.db").read_bytes()
    assert (tmp_path / "keys.db").stat().st_mode & 0o777 == 0o600


def test_a_name_is_free_again_once_its_key_is_revoked(store: KeyStore, clock: Clock) -> None:
    store.create("alice")
    with pytest.raises(ConfigError, match="there is a key 'alice' already"):
        store.create("alice")
    assert store.revoke("alice").state(clock()) == "revoked"
    store.create("alice")
    with pytest.raises(ConfigError, match="there is no key 'bob' in force; there are: alice"):
        store.revoke("bob")


def test_rotating_ends_older_secrets_and_gives_the_last_one_grace(store: KeyStore) -> None:
    _, first = store.create("alice")
    store.rotate("alice", 100)
    key, third = store.rotate("alice", 50)
    assert hash_key(first) not in {each.digest for each in key.secrets}
    assert [each.until_s for each in key.secrets] == [NOON + 50, None]
    assert key.secrets[-1].digest == hash_key(third)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "moe-abc", "first"])
def test_a_name_is_no_key_and_fits_a_line(store: KeyStore, name: str) -> None:
    with pytest.raises(ConfigError):
        store.create(name)


def test_the_key_of_the_file_stays_revoked_until_the_file_has_another(store: KeyStore) -> None:
    store.adopt_first("digest-1")
    assert store.adopt_first("digest-1").role == "admin"
    store.revoke("first")
    assert store.adopt_first("digest-1").revoked_s is not None
    assert store.adopt_first("digest-2").revoked_s is None
    assert [each.digest for each in store.get(FIRST_ID).secrets] == ["digest-2"]


def test_another_writer_is_noticed(store: KeyStore, tmp_path: Path) -> None:
    before = store.version()
    KeyStore(open_database(file_url(tmp_path / "keys.db")), Clock()).create("alice")
    assert store.version() != before


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5", 10**16])
def test_a_limit_is_a_whole_number_from_one(value: object) -> None:
    with pytest.raises(ConfigError, match="tokens_per_day"):
        Limits.from_json({"tokens_per_day": value})
    with pytest.raises(ConfigError, match="is not a limit; the limits are"):
        Limits.from_json({"tokens": 5})


def test_a_store_of_another_kind_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigError) as refusal:
        open_database("postgresql://me:secret@host/db")
    assert "postgresql" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_damaged_a_newer_and_an_open_store_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.db"
    path.write_bytes(b"not a database" * 100)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot use the store"):
        open_database(file_url(path))
    path.unlink()
    open_database(file_url(path)).execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="newer version"):
        open_database(file_url(path))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_database(file_url(path))


def test_use_is_kept_with_the_sums_it_was_told_by(tmp_path: Path) -> None:
    database = open_database(file_url(tmp_path / "keys.db"))
    usage = UsageStore(database)
    usage.append([Fact("s", "m", "k", NOON, Used(1, 2, 3), Used(1, 2, 3))], NOON)
    usage.append([Fact("s", "m", "k", NOON + 1, Used(1, 1, 1), Used(2, 3, 4))], NOON + 1)
    found = usage.remembered(NOON + 2)
    assert found.told == {("s", "k"): Used(2, 3, 4)}
    assert found.recent == [("k", NOON, 1, 5), ("k", NOON + 1, 1, 2)]
    assert (found.day, found.month) == ({"k": 7}, {"k": 7})
    assert usage.by_key("2027-01") == {"k": Used(2, 3, 4)}
    assert usage.remembered(NOON + 90).recent == []


def test_facts_are_stored_all_or_none(tmp_path: Path) -> None:
    usage = UsageStore(open_database(file_url(tmp_path / "keys.db")))
    broken = Fact("s", None, "k", NOON, Used(1, 1, 1), Used(1, 1, 1))  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        usage.append([Fact("s", "m", "k", NOON, Used(1, 1, 1), Used(1, 1, 1)), broken], NOON)
    assert usage.by_key("") == {}
