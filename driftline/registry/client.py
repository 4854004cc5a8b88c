"""redis-py with our settings: no retry behind our back, errors of our tree, no command text in any message.

redis-py 8 retries every command ten times by default, so that during a stall one XADD wrote two entries (FINDINGS §3).
Here a command is sent once; only a caller who knows that it is idempotent repeats it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from driftline.config import resolve_secret
from driftline.errors import ConfigError, DriftlineError, RegistryError, RegistryUnavailable

__all__ = ["Client", "connect", "run_script"]

SOCKET_TIMEOUT_S = 5.0
RETRIABLE_REPLIES = ("LOADING", "BUSY", "READONLY", "MISCONF", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "CLUSTERDOWN")
CODES_OF_CLASSES: dict[type[ResponseError], str] = {
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
}
_REPLY_CODE = re.compile(rf"(?:^|[ :]-?)(OOM|WRONGTYPE|{'|'.join(RETRIABLE_REPLIES)})\b")


class Client(redis.Redis):
    """A thread-safe Redis client. Every command raises RegistryUnavailable (retriable) or RegistryError.

    Delivery: a command that raised RegistryUnavailable may or may not have been executed. Use it for single commands
    and `run_script` only; `pipeline` and `pubsub` bypass the translation of errors.
    """

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with _our_errors(_keys_of(args)):
            return super().execute_command(*args, **options)


def connect(url: str, prefix: str = "driftline", *, timeout_s: float = SOCKET_TIMEOUT_S) -> Client:
    """A client for redis://, rediss://, unix:// or "env:NAME"; `prefix` becomes its name in CLIENT LIST.

    Connects at the first command. ConfigError for a URL that cannot be meant ("embedded" needs `start_embedded` first).
    """
    address = resolve_secret(url)
    try:
        return cast(Client, Client.from_url(address, **_settings(prefix, timeout_s)))
    except ValueError:
        raise ConfigError(
            f'redis.url = "{_redacted(address)}": use redis://HOST:PORT/DB, rediss://… or unix://PATH'
        ) from None


def run_script(client: Client, name: str, keys: Sequence[str], *args: str | bytes | int) -> Any:
    """Run `NAME.lua` of this package (after the shared `live.lua`). Atomic: other clients see all of it or nothing.

    The text is sent each time, so that a restarted or failed-over server needs no loading step.
    """
    return client.eval(_script(name), len(keys), *keys, *cast(Any, args))


@cache
def _script(name: str) -> str:
    folder = files(__package__)
    return folder.joinpath("live.lua").read_text("utf-8") + folder.joinpath(f"{name}.lua").read_text("utf-8")


def _settings(prefix: str, timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "protocol": 2,
        "client_name": re.sub(r"[^!-~]", "_", prefix),
    }


@contextmanager
def _our_errors(keys: Sequence[str]) -> Iterator[None]:
    """Translate, and cut the chain: the text of a failed command holds weights, manifests or passwords."""
    try:
        yield
    except RedisError as error:
        raise _translated(error, keys) from None
    except OSError as error:
        raise RegistryUnavailable(f"Redis does not answer ({error.strerror or type(error).__name__})") from None


def _keys_of(command: Sequence[Any]) -> list[str]:
    """The keys that a command names, as far as a message needs them: values never stand in one."""
    verb = str(command[0]).upper()
    if verb == "EVAL":
        named = command[3 : 3 + int(command[2])]
    elif verb == "XREAD":  # XREAD … STREAMS KEY … ID …
        after = list(command[[str(_plain(one)).upper() for one in command].index("STREAMS") + 1 :])
        named = after[: len(after) // 2]
    else:
        named = command[1:2]
    return [str(_plain(key)) for key in named]


def _plain(part: Any) -> Any:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _translated(error: RedisError, keys: Sequence[str]) -> DriftlineError:
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return RegistryError("Redis refuses this user: check the password in redis.url, and what its ACL allows")
    kind = type(error).__name__
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        remedy = "is the server of redis.url running? An embedded one is started again by `driftline up`"
        return RegistryUnavailable(f"Redis does not answer ({kind}): {remedy}")
    if isinstance(error, ResponseError):
        return _translated_reply(_reply_code(error), keys)
    return RegistryError(f"redis-py refused a command or a reply ({kind}): a mistake in Driftline, please report it")


def _reply_code(error: ResponseError) -> str:
    """redis-py cuts the codes off that it has classes for; where a script failed, they stand within the first words."""
    for kind, code in CODES_OF_CLASSES.items():
        if isinstance(error, kind):
            return code
    found = _REPLY_CODE.search(str(error)[:200])
    return found.group(1) if found else "ERR"


def _translated_reply(code: str, keys: Sequence[str]) -> DriftlineError:
    if code == "OOM":
        return RegistryUnavailable("Redis is out of memory and refuses writes: raise its maxmemory")
    if code in RETRIABLE_REPLIES:
        return RegistryUnavailable(f"Redis does not take commands now ({code})")
    return RegistryError(
        f"Redis refused a command ({code}) on {', '.join(keys)}: does another program use redis.prefix? Or a key was "
        "damaged: TYPE and the append-only file show which; restored or deleted, Driftline goes on by itself"
    )


def _redacted(url: str) -> str:
    return re.sub(r"//[^@/]*@", "//***@", url)
