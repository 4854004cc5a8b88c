"""What the architecture promises and import-linter cannot see: late imports, examples that load, names that fit."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from driftline import errors
from driftline.config import feed_topics, load_config
from driftline.names import DEAD_LETTER_REASONS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
HEAVY = {"torch", "transformers", "peft", "kafka", "fastapi", "uvicorn", "apscheduler"}
ROOMS = ("stream", "learner", "serving", "replay")
BUILDERS = {
    "driftline.assembly": ("driftline/assembly", "driftline/cli", "replay"),
    "driftline.cli": ("driftline/cli",),
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has after the statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "driftline.config",
        "driftline.records",
        "driftline.topics.codec",
        "driftline.topics.files",
        "driftline.registry",
        "driftline.buffer",
        "driftline.experts",
        "driftline.artefact.manifest",
        "driftline.assembly.wiring",
        "driftline.cli.app",
        "stream.decode",
        "replay.simulate",
        "replay.evaluation",
    ],
)
def test_light_modules_stay_light(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_config_needs_no_client_at_all() -> None:
    assert loaded_by("import driftline.config") & {*HEAVY, "redis", "numpy", "safetensors"} == set()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    config = load_config(path)
    assert all(feed_topics(config, feed) for feed in config.feed)


def test_examples_are_there() -> None:
    expected = {"sentiment_shift", "airline", "steam", "clinc150", "kafka_redis", "reviews"}
    assert expected <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize(("package", "folders"), BUILDERS.items(), ids=BUILDERS)
def test_only_those_above_import(package: str, folders: tuple[str, ...]) -> None:
    outside = [path for path in sources() if not any(path.is_relative_to(ROOT / folder) for folder in folders)]
    assert [str(path) for path in outside if package in imports(path)] == []


def test_no_junk_drawers() -> None:
    assert [str(path) for path in sources() if path.stem in VAGUE] == []


def test_modules_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in sources()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_all_names_are_there() -> None:
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for exported in exported_names(tree):
            assert exported in defined_names(tree), f"{path.relative_to(ROOT)}: __all__ names {exported!r}"


def test_the_error_tree_is_as_drawn() -> None:
    drawn = {word.strip("│├└─ ").split()[0] for word in (errors.__doc__ or "").splitlines() if "──" in word}
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and name != "ClassVar"}
    assert drawn == classes - {"DriftlineError"}


def test_reason_codes_are_codes() -> None:
    assert all(code.replace("_", "").isalpha() and meaning for code, meaning in DEAD_LETTER_REASONS.items())


def sources() -> list[Path]:
    return sorted(path for folder in ("driftline", *ROOMS) for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> str:
    """Everything the module imports, one name a line."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return "\n".join(names)


def exported_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return [str(value) for value in ast.literal_eval(node.value)]
    return []


def defined_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
