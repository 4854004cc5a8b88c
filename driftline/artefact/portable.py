"""What an exported folder carries so that it answers elsewhere as it does here: our cleaning and the probe's texts.

Guards that the cleaning is exact: it is copied byte for byte, with the ftfy that runs here and its licence, because a
stranger's environment has another ftfy or none (ADR 8). One file of ftfy is replaced, that which measures text on
terminals: it alone needs another library, and cleaning never calls it. Pure Python only; nothing here is run on import.
"""

import shutil
from importlib import metadata
from pathlib import Path

from driftline.artefact import probe
from driftline.errors import DriftlineError
from driftline.topics import text

__all__ = ["CODE_FOLDER", "check_code", "ftfy_version", "write_code"]

CODE_FOLDER = "code"
LEFT_OUT = ("cli.py", "formatting.py")
FORMATTING = '''\
"""Changed by Driftline: ftfy's own formatting.py measures text on terminals, for which it needs the library wcwidth.
Cleaning never calls it, so that this file only holds the name that ftfy imports."""


def display_ljust(text, width, fillchar=" "):
    return str(text).ljust(width, fillchar)
'''


def ftfy_version() -> str:
    """The version of ftfy that cleans here."""
    return metadata.version("ftfy")


def write_code(folder: Path) -> None:
    """Make `folder`/code with driftline_text.py, driftline_probe.py and ftfy. DriftlineError if ftfy is incomplete."""
    code = folder / CODE_FOLDER
    code.mkdir()
    shutil.copyfile(str(text.__file__), code / "driftline_text.py")
    shutil.copyfile(str(probe.__file__), code / "driftline_probe.py")
    _write_ftfy(code / "ftfy")


def check_code() -> None:
    """DriftlineError if `write_code` could not copy what it has to; nothing is written."""
    _ftfy_files()


def _ftfy_files() -> tuple[list[metadata.PackagePath], list[metadata.PackagePath]]:
    """Sources and licences of the ftfy that runs here."""
    files = metadata.files("ftfy") or []
    licences = [file for file in files if "licenses" in file.parts]
    sources = [file for file in files if file.parts[0] == "ftfy" and file.suffix == ".py" and file.name not in LEFT_OUT]
    if not licences or not sources:
        raise DriftlineError("the installed ftfy has no files or no licence to copy: install it again from its wheel")
    return sources, licences


def _write_ftfy(folder: Path) -> None:
    sources, licences = _ftfy_files()
    for source in sources:
        target = folder.joinpath(*source.parts[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(source.locate()), target)
    for licence in licences:
        shutil.copyfile(str(licence.locate()), folder / licence.name)
    (folder / "formatting.py").write_text(FORMATTING, encoding="utf-8")
