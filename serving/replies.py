"""The answers of both HTTP apps: their shape, once, for the code that makes them and for `/openapi.json`. Pure.

Every error has the shape of `ErrorReply`; `described` says for a route what it takes, what it answers, and that.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "OPEN",
    "ErrorReply",
    "ExpertReply",
    "FeedReply",
    "FeedsReply",
    "HealthReply",
    "LabelsReply",
    "LiveReply",
    "PredictReply",
    "PredictionReply",
    "ReadyFeed",
    "ReadyReply",
    "StatusReply",
    "described",
]

OPEN = "health"
BEARER = {"bearer": {"type": "http", "scheme": "bearer", "description": "the token of the verb, if one is set"}}

Share = Annotated[float, Meta(ge=0, le=1)]
Version = Annotated[int, Meta(ge=0, description="0 is the untrained base")]


Pulse = Annotated[int, Meta(ge=0, description="the feed's fast state; 0: there is none, the version answers alone")]


class ExpertReply(msgspec.Struct, frozen=True):
    """What one expert says, by label: scores on the scale of logits, and the weight that each of them got."""

    scores: dict[str, float]
    weight: dict[str, float]


class PredictionReply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, in the order of the inputs. `label` is null only at version 0; `scores` sum to 1.

    With `?experts=true`: `scores` are the softmax of the sum, over `experts`, of weight times score, plus `bias`; both
    are empty where the version's head answered alone.
    """

    id: str | int | None
    label: str | None
    scores: dict[str, Share]
    adapter_version: Version
    pulse: Pulse
    experts: dict[str, ExpertReply] | UnsetType = UNSET
    bias: dict[str, float] | UnsetType = UNSET


class PredictReply(msgspec.Struct, frozen=True):
    """What /predict answers."""

    predictions: list[PredictionReply]


class LabelsReply(msgspec.Struct, frozen=True):
    """How many labels stand on the labels topic now."""

    accepted: int


class ReadyFeed(msgspec.Struct, frozen=True):
    """What this replica serves for a feed, and why it is not what the registry names, if so. `fell_back`: the watch of
    the fast clock lets the version's head answer alone."""

    ready: bool
    version: Version
    revision: int
    pulse: Pulse
    fell_back: bool
    refused: str | None


class FeedReply(msgspec.Struct, frozen=True):
    """A feed that this replica answers: its classes as the config names them, and what is served."""

    feed: str
    task: str
    labels: list[str]
    ready: bool
    version: Version
    revision: int
    pulse: Pulse


class FeedsReply(msgspec.Struct, frozen=True):
    """All feeds, in the config's order."""

    feeds: list[FeedReply]


class HealthReply(msgspec.Struct, frozen=True):
    """`ok`, or `engine_stopped`: restart this process."""

    status: str


class ReadyReply(msgspec.Struct, frozen=True):
    """`ready`, or `not_ready` with what each feed lacks."""

    status: str
    feeds: dict[str, ReadyFeed]


class LiveReply(msgspec.Struct, frozen=True):
    """The live record of a feed, after what was asked. `anchor`: the best version promoted so far."""

    feed: str
    version: Version
    revision: int
    anchor: int
    paused: bool
    pause_reason: str | None
    changed_at: str | None
    actor: str | None


class ReplicaReply(msgspec.Struct, frozen=True):
    """A replica's last heartbeat, by feed where that matters."""

    replica: str
    role: str
    url: str | None
    serving: dict[str, int]
    revisions: dict[str, int]
    refused: dict[str, str]
    pulses: dict[str, int]
    fell_back: list[str]
    seen_at: str
    pid: int


class ResidentReply(msgspec.Struct, frozen=True):
    """A version in a slot of the bank."""

    feed: str
    version: int


class StatusReply(msgspec.Struct, frozen=True):
    """What this replica serves, what the registry names as live, and who else serves. `registry`: `ok`, or why `live`
    and `replicas` are null."""

    replica: str
    version: str
    queued_inputs: int
    resident: list[ResidentReply]
    feeds: dict[str, ReadyFeed]
    registry: str
    live: dict[str, LiveReply] | None
    replicas: list[ReplicaReply] | None


class ErrorDetail(msgspec.Struct, frozen=True):
    """`code` is for programs; `message` names the key, the value and the remedy."""

    code: str
    message: str


class ErrorReply(msgspec.Struct, frozen=True):
    """The one shape of every error."""

    error: ErrorDetail


def described(
    tag: str,
    reply: type[msgspec.Struct],
    example: Any,
    *,
    status: int = 200,
    body: tuple[type[msgspec.Struct], Any] | None = None,
    flags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A route's `tags`, `status_code`, `responses` and `openapi_extra` for FastAPI. `body`: its shape and an example.
    `flags`: what may stand in the query as true or false, and what it does.

    All but `OPEN` routes take a token.
    """
    extra: dict[str, Any] = {} if tag == OPEN else {"security": [{"bearer": []}]}
    if body is not None:
        extra["requestBody"] = {"content": _content(*body)}
    if flags:
        boolean = {"type": "boolean", "default": False}
        extra["parameters"] = [
            {"name": name, "in": "query", "required": False, "description": what, "schema": boolean}
            for name, what in flags.items()
        ]
    error = {"error": {"code": "unknown_feed", "message": "no feed 'review'; known feeds: reviews"}}
    return {
        "tags": [tag],
        "status_code": status,
        "responses": {
            status: {"description": (reply.__doc__ or "").strip(), "content": _content(reply, example)},
            "default": {"description": "what is wrong, and what to do", "content": _content(ErrorReply, error)},
        },
        "openapi_extra": extra,
    }


def _content(kind: type[msgspec.Struct], example: Any) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([kind])
    return {"application/json": {"schema": _inline(components, kind.__name__), "example": example}}


def _inline(components: dict[str, Any], name: str) -> Any:
    """The named schema with references to others replaced by them: a path's schema cannot carry its own definitions."""

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(components[value["$ref"].rsplit("/", 1)[1]])
            return {key: resolved(part) for key, part in value.items()}
        return [resolved(part) for part in value] if isinstance(value, list) else value

    return resolved(components[name])
