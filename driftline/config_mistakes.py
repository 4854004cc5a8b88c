"""What pydantic complains about, in words for whoever wrote the config: the key, the value, the remedy."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

_MISSING = {
    "labels": 'list the feed\'s classes, such as labels = ["negative", "positive"]',
    "feed": "add a section such as [feed.reviews] with its labels",
}

_LABELS = 'write at least 2 texts in brackets, such as labels = ["negative", "positive"]'
_WORDS = {
    "tuple_type": 'write a list of texts in brackets, such as ["one", "two"]',
    "too_short": "write at least {min_length}",
    "string_type": "write a text in quotes",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "int_type": "write a whole number without quotes",
    "int_parsing": "write a whole number without quotes",
    "int_from_float": "write a whole number",
    "float_type": "write a number without quotes or unit",
    "float_parsing": "write a number without quotes or unit",
    "greater_than": "write a number above {gt}",
    "greater_than_equal": "write a number from {ge} on",
    "less_than": "write a number below {lt}",
    "less_than_equal": "write a number up to {le}",
    "literal_error": "write {expected}",
    "path_type": "write a path in quotes",
    "model_type": "is a section: write it as [{key}]",
    "dict_type": "is a section: write it as [{key}]",
}


def explain(error: ValidationError, root: type[BaseModel], named: dict[str, type[BaseModel]]) -> list[str]:
    """One line for each mistake. `root` is the file's model; in `named` sections the next part is a user's name."""
    return [_explain_one(dict(problem), root, named) for problem in error.errors(include_url=False)]


def _explain_one(problem: dict[str, Any], root: type[BaseModel], named: dict[str, type[BaseModel]]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "(file)"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1], root, named)
        near = difflib.get_close_matches(location[-1], known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known)}"
        return f"{key}: unknown key; {remedy}"
    if problem["type"] == "missing":
        return f"{key}: is missing; {_MISSING.get(location[-1], 'set it')}"
    message = _message(problem, location)
    shown = "" if isinstance(problem["input"], dict) else f" = {_short(problem['input'])}"
    return f"{key}{shown}: {message}"


def _message(problem: dict[str, Any], location: list[str]) -> str:
    """The remedy; pydantic's own words only for what nobody has met yet."""
    if location and location[-1] == "labels" and problem["type"] in ("tuple_type", "too_short"):
        return _LABELS
    if location == ["feed"]:
        return _MISSING["feed"]
    if problem["type"] in _WORDS:
        return _WORDS[problem["type"]].format(key=".".join(location), **problem.get("ctx", {}))
    return str(problem["msg"]).removeprefix("Value error, ")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _known_keys(location: list[str], root: type[BaseModel], named: dict[str, type[BaseModel]]) -> list[str]:
    section: Any = root
    if location and location[0] in named:
        section, location = named[location[0]], location[2:]
    for part in location:
        section = section.model_fields[part].annotation
    return sorted(section.model_fields)
