"""`keys`: API keys made, listed, limited, rotated and revoked. The front takes a change up by itself, within 2 s."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from orchestrator.cli.cluster_command import ClusterCommand
from orchestrator.cli.output import JsonOption, err, out, print_json
from orchestrator.errors import ConfigError
from orchestrator.store.database import open_database, store_url
from orchestrator.store.home import home, write_private
from orchestrator.store.keys import FIRST_ID, Key, KeyStore
from orchestrator.store.limits import Limits
from orchestrator.store.secrets import hash_key, read_api_key
from orchestrator.store.usage import UsageStore, day_of

HELP = """Make, list, limit, rotate and revoke API keys; changes are in force within 2 s.

Only digests are kept: a key is printed once, when it is made. `first` is the
key that `deploy` makes for itself; it is an administrator's. Every command
prints JSON with --json.

    orchestrator keys create alice --models smol-moe --expires 30d --requests-per-minute 60
    orchestrator keys rotate alice --grace 1h
"""
_LIFETIME = re.compile(r"(\d+)\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# Longer than anybody plans, shorter than what dates can hold.
_LONGEST_S = 100 * 365 * 86_400

NameArgument = typer.Argument(..., help="The key's name, or its id.")


def _limit_option(text: str) -> Any:
    return typer.Option(None, min=1, help=text, show_default=False)


RequestsOption = _limit_option("Requests in any 60 s.")
TokensOption = _limit_option("Tokens in any 60 s, prompts and answers together.")
ConcurrentOption = _limit_option("Requests at a time.")
PromptOption = _limit_option("Tokens of a prompt.")
AnswerOption = _limit_option("Tokens of an answer.")
DayOption = _limit_option("Budget: tokens a day (UTC).")
MonthOption = _limit_option("Budget: tokens a month (UTC).")


def create(
    name: str = typer.Argument(..., help="What the key is called here; no client sees it."),
    role: str = typer.Option("user", help="`user` or `admin`."),
    models: str = typer.Option(None, help="Models it may use, with commas between. Default: all.", show_default=False),
    expires: str = typer.Option(None, help="30d, 12h, 90m, 2w. Default: never.", show_default=False),
    requests_per_minute: int = RequestsOption,
    tokens_per_minute: int = TokensOption,
    concurrent_requests: int = ConcurrentOption,
    max_prompt_tokens: int = PromptOption,
    max_answer_tokens: int = AnswerOption,
    tokens_per_day: int = DayOption,
    tokens_per_month: int = MonthOption,
    as_json: bool = JsonOption,
) -> None:
    """Make a key and print it, this once."""
    limits = Limits(
        requests_per_minute, tokens_per_minute, concurrent_requests, max_prompt_tokens, max_answer_tokens,
        tokens_per_day, tokens_per_month,
    )  # fmt: skip
    allowed = None if models is None else tuple(each.strip() for each in models.split(","))
    lifetime_s = None if expires is None else parse_lifetime(expires, "--expires")
    _print_secret(*_store().create(name, role, allowed, limits, lifetime_s), as_json)


def list_(as_json: bool = JsonOption) -> None:
    """List all keys, with what they used today and this month; never the keys themselves."""
    database = open_database(store_url())
    keys, usage, now_s = _store().all(), UsageStore(database), time.time()
    today, month = usage.by_key(day_of(now_s)), usage.by_key(day_of(now_s)[:7])
    rows = [
        {**key.to_json(now_s), "used": {"day": _used(today.get(key.id)), "month": _used(month.get(key.id))}}
        for key in keys
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "state", "role", "models", "expires", "limits", "tokens today", "this month", box=None)
    for row in rows:
        limits = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in row["limits"].items())
        table.add_row(
            row["name"], row["state"], row["role"], ", ".join(row["models"] or ["all"]), _date(row["expires_s"]),
            limits or "none", f"{row['used']['day']['tokens']:,}", f"{row['used']['month']['tokens']:,}",
        )  # fmt: skip
    out.print(table)


def limit(
    name: str = NameArgument,
    requests_per_minute: int = RequestsOption,
    tokens_per_minute: int = TokensOption,
    concurrent_requests: int = ConcurrentOption,
    max_prompt_tokens: int = PromptOption,
    max_answer_tokens: int = AnswerOption,
    tokens_per_day: int = DayOption,
    tokens_per_month: int = MonthOption,
    as_json: bool = JsonOption,
) -> None:
    """Replace a key's limits by those that are named; those that are not named are lifted."""
    limits = Limits(
        requests_per_minute, tokens_per_minute, concurrent_requests, max_prompt_tokens, max_answer_tokens,
        tokens_per_day, tokens_per_month,
    )  # fmt: skip
    _print_key(_store().limit(name, limits), "limited", as_json)


def revoke(name: str = NameArgument, as_json: bool = JsonOption) -> None:
    """Put a key out of force for good; what it has begun is finished."""
    key = _store().revoke(name)
    if key.id == FIRST_ID:
        err.print(
            f"  `deploy` and `chat` used this key; to give them another, remove {home() / 'api-key'} and deploy again",
            highlight=False,
        )
    _print_key(key, "revoked", as_json)


def rotate(
    name: str = NameArgument,
    grace: str = typer.Option("1d", help="How long the key of before stays good: 0s, 1h, 7d."),
    as_json: bool = JsonOption,
) -> None:
    """Give a key another secret and print it, this once; the one before stays good for a while."""
    key, secret = _store().rotate(name, parse_lifetime(grace, "--grace", least_s=0))
    if key.id == FIRST_ID:
        write_private(home() / "api-key", secret + "\n")
        err.print(f"  the new key is in {home() / 'api-key'}", highlight=False)
    _print_secret(key, secret, as_json)


def parse_lifetime(text: str, option: str, least_s: int = 1) -> int:
    """Seconds of `30d`, `12h`, `90m`, `2w` or `45s`. Raises `ConfigError` naming `option`."""
    match = _LIFETIME.fullmatch(text.strip())
    seconds = int(match.group(1)) * _SECONDS[match.group(2)] if match and len(match.group(1)) < 12 else -1
    if not least_s <= seconds <= _LONGEST_S:
        raise ConfigError(f"{option} {text[:40]!r}: write a time as 45s, 90m, 12h, 30d or 2w, of at most 100 years")
    return seconds


def _store() -> KeyStore:
    """The store, which knows the key of the key file too."""
    store = KeyStore(open_database(store_url()), time.time)
    path = home() / "api-key"
    if path.exists():
        store.adopt_first(hash_key(read_api_key(path)))
    return store


def _used(used: Any) -> dict[str, int]:
    if used is None:
        return {"requests": 0, "tokens_in": 0, "tokens_out": 0, "tokens": 0}
    return {**vars(used), "tokens": used.tokens}


def _date(at_s: int | None) -> str:
    return "never" if at_s is None else datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _print_secret(key: Key, secret: str, as_json: bool) -> None:
    if as_json:
        print_json({**key.to_json(time.time()), "key": secret})
        return
    typer.echo(secret)
    err.print(
        f"  key of {key.name} ({key.role}), expires: {_date(key.expires_s)}; it is not shown again", highlight=False
    )
    if (until_s := key.to_json(time.time())["old_key_until_s"]) is not None:
        err.print(f"  the key of before is good until {_date(until_s)}", highlight=False)


def _print_key(key: Key, what: str, as_json: bool) -> None:
    if as_json:
        print_json(key.to_json(time.time()))
    else:
        out.print(f"{key.name}: {what}", highlight=False, markup=False)


def group(name: str) -> TyperGroup:
    """The command with its subcommands, each of which a cluster elsewhere can run."""
    commands = typer.Typer(name=name, help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")
    for called, function in (
        ("create", create), ("list", list_), ("limit", limit), ("rotate", rotate), ("revoke", revoke)
    ):  # fmt: skip
        commands.command(called, cls=ClusterCommand)(function)
    made = typer.main.get_group(commands)
    for called, command in made.commands.items():
        command.name = f"{name} {called}"  # as it is called on a cluster's head
    return made
