"""What pydantic complains about, in words for whoever wrote the config: the key, the value, the remedy."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

_MISSING = {
    "labels": 'list the feed\'s classes, such as labels = ["negative", "positive"]',
    "feed": "add a section such as [feed.reviews] with its labels",
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
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], dict) else f" = {_short(problem['input'])}"
    return f"{key}{shown}: {message}"


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
