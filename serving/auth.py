"""Who may do what: one bearer token each for predicting, labelling and administering, from the environment only.

Guards that nothing is open to the network by accident: without a token a verb is open on loopback alone, and only to
requests that no web page of another origin has made. Not covered: TLS (put a proxy in front) and users.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from driftline.errors import BadInput, ConfigError

PREFIX = "DRIFTLINE_"
VERBS = ("PREDICT", "LABEL", "ADMIN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The three tokens; None leaves the verb open to this machine."""

    predict: str | None = None
    label: str | None = None
    admin: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], host: str) -> Self:
        """Read DRIFTLINE_PREDICT_TOKEN, …_LABEL_TOKEN, …_ADMIN_TOKEN. ConfigError if one is missing off loopback."""
        found = {verb: environment.get(f"{PREFIX}{verb}_TOKEN") or None for verb in VERBS}
        missing = [f"{PREFIX}{verb}_TOKEN" for verb, token in found.items() if token is None]
        if missing and not is_loopback(host):
            raise ConfigError(
                f"serve.host = {host!r} is reachable from other machines: set {', '.join(missing)} in the environment, "
                'or use serve.host = "127.0.0.1"'
            )
        return cls(predict=found["PREDICT"], label=found["LABEL"], admin=found["ADMIN"])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def authorize(headers: Mapping[str, str], token: str | None, verb: str) -> None:
    """BadInput 401 unless the request carries the token; where there is none, 403 if a foreign web page asks and 400 if
    the origin is none."""
    if token is None:
        _refuse_foreign_page(headers.get("origin"))
        return
    if not carries(headers, token):
        name = f"{PREFIX}{verb}_TOKEN"
        message = f'this needs the header "Authorization: Bearer …" with the token that {name} holds on the server'
        raise BadInput("unauthorized", message, status=401)


def carries(headers: Mapping[str, str], token: str) -> bool:
    """Whether the request carries this token."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
    return scheme.lower() == "bearer" and same


def authorize_labels(headers: Mapping[str, str], tokens: Tokens) -> bool:
    """As `authorize` for LABEL; the ADMIN token will do as well. Returns whether the request may name a trusted
    labeller, whose word corrects everybody's: only who may administer may."""
    if tokens.admin is not None and carries(headers, tokens.admin):
        return True
    authorize(headers, tokens.label, "LABEL")
    return tokens.admin is None


def _refuse_foreign_page(origin: str | None) -> None:
    """A browser on this machine must not be made to change what is live by some page it shows."""
    if origin is None:
        return
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        message = f'the header "Origin: {origin:.80}" is no origin: leave it out, or send scheme, host and port'
        raise BadInput("bad_origin", message, status=400) from None
    if not is_loopback(host):
        message = "requests from web pages of other origins need a token: set the DRIFTLINE_*_TOKEN variables"
        raise BadInput("foreign_origin", message, status=403)
