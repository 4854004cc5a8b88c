"""The bodies of the public HTTP requests: their shape, and the checks that a schema cannot express. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from driftline.errors import BadInput
from driftline.topics.codec import clean_text
from driftline.topics.fields import MAX_ID_BYTES

PREDICT_EXAMPLE = (
    '{"inputs": [{"id": "r-17", "text": "…"}], "adapter_version": 12}; id and adapter_version are optional'
)
LABELS_EXAMPLE = '{"labels": [{"id": "r-17", "label": "…"}]}'


class PredictInput(msgspec.Struct):
    """One text; further fields are ignored, so that events can be posted as they are.

    `adapter_version` is here to be refused: it belongs to the request, and ignored it would go unnoticed.
    """

    text: str
    id: str | int | None = None
    adapter_version: Any = None


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /predict."""

    inputs: list[PredictInput]
    adapter_version: int | None = None


class LabelInput(msgspec.Struct):
    """One label of an event. A `labeller` of `labels.trusted` is only believed with the admin token."""

    id: str | int
    label: str | int
    labeller: str | None = None


class LabelsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of /labels."""

    labels: list[LabelInput]


def checked_id(value: str | int | None, key: str) -> str | None:
    """An event id as topics carry it: digits for an integer, None if absent or empty. BadInput if it is too long."""
    if value is None or value == "":
        return None
    try:
        text = str(value)
        text.encode()
    except ValueError:
        raise BadInput("invalid_body", f"{key} is not valid Unicode, or a number with too many digits") from None
    size = len(text.encode())
    if size > MAX_ID_BYTES:
        raise BadInput("id_too_long", f"{key} has {size} bytes, at most {MAX_ID_BYTES} are allowed")
    return text


def check_places(inputs: Sequence[PredictInput]) -> None:
    """BadInput where an input carries what belongs beside `inputs`."""
    for index, one in enumerate(inputs):
        if one.adapter_version is not None:
            message = f"inputs[{index}].adapter_version: it belongs beside `inputs`, for all of them: {PREDICT_EXAMPLE}"
            raise BadInput("misplaced_field", message)


def checked_version(version: int | None) -> int | None:
    """A version that may exist. BadInput for a negative or an absurd one."""
    if version is not None and not 0 <= version < 2**53:
        raise BadInput("invalid_body", f"adapter_version = {version}: use a version from 0 on, or leave it out")
    return version


def checked_flag(query: Mapping[str, str], name: str) -> bool:
    """A flag of the query: true, false, or absent. BadInput for anything else."""
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise BadInput("invalid_query", f"?{name}={value:.40}: use true or false, or leave it out")
    return value == "true"


def cleaned_text(text: str, index: int, max_bytes: int) -> str:
    """The text as events are cleaned. BadInput 413 if it is too long, 422 if nothing is left of it."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        message = f"inputs[{index}].text has {size} bytes, at most {max_bytes} are allowed (serve.max_text_bytes)"
        raise BadInput("text_too_long", message, status=413)
    cleaned = clean_text(text)
    if not cleaned:
        raise BadInput("empty_text", f"inputs[{index}].text: nothing is left of it after cleaning")
    return cleaned
