"""Versions as parts: those of older manifest formats go on as they were; a further part needs no change elsewhere."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from cryptography.hazmat.primitives import serialization

import learner.versions
from driftline.artefact.exchange import export_folder, read_folder
from driftline.artefact.manifest import SIGNING_DOMAIN, Trust, decode_signed
from driftline.artefact.recipe import Recipe, decode_recipe
from driftline.artefact.weights import Weights, pack_parts, unpack_tensors
from driftline.base import Base, load_base
from driftline.base_source import PortableBase
from driftline.config import BaseModelConfig, FeedConfig
from driftline.errors import ArtefactError, UnknownVersion
from driftline.names import Keys
from driftline.records import Cycle
from driftline.registry import Client, Registry, connect
from driftline.tasks import task_named
from learner.model import LoraModel
from learner.training import Training
from learner.versions import Versions
from serving.stage import Verifier
from tests.fixtures.learning import FEED, START, School, section
from tests.fixtures.replicas import Replica, eventually

WHO: dict[str, Any] = {"actor": "ana", "reason": "test", "at": START}
TEXTS = ["good good film", "bad poor phone", "room 7"]
OLD_PARTS = ("body", "head", "trainer_state")
LATER_FIELDS = {1: ("format", "dtype", "broken_words"), 2: ()}


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu", max_tokens=64))


@pytest.fixture
def school(registry: Registry, base: Base, tmp_path: Path) -> Iterator[School]:
    school = School(folder=tmp_path / "school", registry=registry, base=base)
    yield school
    school.close()


@pytest.fixture
def untouched(redis_url: str, unique: str, base: Base, tmp_path: Path) -> Iterator[School]:
    """The same feed in another registry."""
    client = connect(redis_url, unique)
    school = School(folder=tmp_path / "untouched", registry=Registry(client, Keys(f"{unique}-untouched")), base=base)
    yield school
    school.close()
    client.close()


def weight_parts(school: School, version: int) -> dict[str, str]:
    return {name: school.parts(version)[name] for name in ("body", "head")}


def turn(school: School) -> int:
    """A new learner process, one cycle; the version it made."""
    school.add(60)
    learner = school.learner()
    learner.keep_house()
    report = learner.turn()
    assert report is not None
    learner.lease.release()
    return report.cycle.version


def written_in(manifest_format: int, school: School, version: int, client: Client, keys: Keys) -> bytes:
    """Put the version's manifest back as the Driftline of that format had written and signed it."""
    name = keys.manifests(FEED)
    fields = json.loads(json.loads(client.hget(name, str(version)))["document"])
    parts = fields.pop("parts")
    parts["trainer_state"] = school.registry.put_blob(FEED, in_format_1(school, parts["trainer_state"]))
    for part in OLD_PARTS:
        fields[f"{part}_sha256"] = parts[part]
    fields["format"] = manifest_format
    for field in LATER_FIELDS[manifest_format]:
        del fields[field]
    if manifest_format == 1:
        fields["evaluation"] = {n: {"accuracy": e["accuracy"], "n": e["n"]} for n, e in fields["evaluation"].items()}
    document = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    pem = (school.folder / "keys" / "signing.pem").read_bytes()
    key: Any = serialization.load_pem_private_key(pem, password=None)
    envelope = {
        "document": document,
        "signature": key.sign(SIGNING_DOMAIN + document.encode()).hex(),
        "key_id": school.signer.key_id,
    }
    client.hset(name, str(version), json.dumps(envelope))
    return document.encode()


def in_format_1(school: School, sha256: str) -> bytes:
    """The same trainer state as it was written before its owners had names."""
    tensors, header = unpack_tensors(school.registry.get_blob(FEED, sha256))
    facts = json.loads(header["owners"])
    told = {name: json.dumps(facts["reservoir"][name]) for name in ("classes", "seen", "full")}
    names = {name: name.replace("optimizer.", "moments.").replace("recent.seqs", "recent") for name in tensors}
    metadata = {"format": "1", "step": str(facts["optimizer"]["step"]), "buffer": header["buffer"], **told}
    return safetensors.torch.save({names[name]: one for name, one in tensors.items()}, metadata)


@pytest.mark.parametrize("manifest_format", [1, 2])
def test_a_version_of_an_older_format_is_served_exported_rolled_back_to_and_learned_from(
    manifest_format: int,
    school: School,
    untouched: School,
    registry: Registry,
    redis_client: Client,
    keys: Keys,
    base: Base,
    tmp_path: Path,
) -> None:
    for _ in range(3):
        turn(untouched)
    for _ in range(2):
        turn(school)
    weights_of = {version: weight_parts(school, version) for version in (1, 2)}
    documents = {version: written_in(manifest_format, school, version, redis_client, keys) for version in (1, 2)}
    assert b"parts" not in documents[2]
    assert school.manifest(2).format == manifest_format
    assert [set(school.parts(version)) for version in (1, 2)] == [set(OLD_PARTS)] * 2
    assert {version: weight_parts(school, version) for version in (1, 2)} == weights_of

    trust = Trust.of(school.signer.public_key)
    with Replica(registry, trust, base, {FEED: school.section}, tmp_path) as replica:
        replica.watch()
        assert eventually(lambda: replica.live(FEED) == 2)
        assert {one.adapter_version for one in replica.engine.predict(FEED, TEXTS)} == {2}
        registry.rollback(FEED, 1, expected_revision=2, **WHO)
        assert eventually(lambda: replica.live(FEED) == 1)

    _, weights = Verifier(registry, trust, base).fetch(FEED, 2)
    export_folder(tmp_path / "out", registry.manifest(FEED, 2), weights, PortableBase(name="base"))
    signed, read = read_folder(tmp_path / "out")
    assert signed is not None
    assert signed.document == documents[2], "it leaves as it was signed"
    assert trust.verify(signed).parts == school.parts(2)
    assert pack_parts(read) == pack_parts(weights)

    registry.promote(FEED, 2, expected_revision=3, **WHO)
    registry.resume(FEED, **WHO)
    version = turn(school)
    manifest = school.manifest(version)
    assert (manifest.parent, manifest.format) == (2, 3)
    assert school.buffer.ledger.cycles(FEED)[-1].cycle.plan.replayed, "it remembers what its parent's trainer state did"
    assert weight_parts(school, version) == weight_parts(untouched, version), "and goes on from the same moments"
    registry.collect_garbage(FEED, keep_versions=1, grace_s=0)
    assert all(registry.get_blob(FEED, one) for one in school.parts(2).values()), "the way back"


def test_what_older_driftlines_signed_is_still_signed() -> None:
    """Real documents of both, written by the code of their time."""
    for manifest_format in (1, 2):
        folder = Path(__file__).parents[1] / "fixtures" / "artefacts"
        signed = decode_signed((folder / f"manifest-format-{manifest_format}.json").read_bytes())
        key: Any = serialization.load_pem_public_key((folder / f"public-{manifest_format}.pem").read_bytes())
        manifest = Trust.of(key).verify(signed)
        said = json.loads(signed.document)
        assert manifest.parts == {name: said[f"{name}_sha256"] for name in OLD_PARTS}
        assert (manifest.format, manifest.version, manifest.labels) == (manifest_format, 2, ("negative", "positive"))
        assert manifest.evaluation["pooled"].accuracy == said["evaluation"]["pooled"]["accuracy"]


# --- a fourth part


@pytest.fixture
def more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner that writes a part which nobody knows."""

    def with_another(weights: Weights) -> dict[str, bytes]:
        return {
            **pack_parts(weights),
            "sediment": b"state of " + sha256(weights.head_bias.numpy().tobytes()).digest(),
        }

    monkeypatch.setattr(learner.versions, "pack_parts", with_another)


@pytest.mark.usefixtures("more")
def test_a_part_that_nobody_knows_lives_as_long_as_its_version(
    school: School, registry: Registry, redis_client: Client, keys: Keys, base: Base, tmp_path: Path
) -> None:
    for _ in range(4):
        turn(school)
    manifests = {version: school.manifest(version) for version in (1, 2, 3, 4)}
    assert all("sediment" in manifest.parts for manifest in manifests.values())
    assert registry.get_part(manifests[4], "sediment").startswith(b"state of ")
    with pytest.raises(ArtefactError, match="no part 'mixer', only body, head"):
        registry.get_part(manifests[4], "mixer")

    assert registry.collect_garbage(FEED, keep_versions=2, grace_s=0) > 0
    for version, is_kept in ((4, True), (3, True), (1, registry.live(FEED).anchor == 1)):
        assert has(lambda version=version: registry.get_part(manifests[version], "sediment")) == is_kept

    trust = Trust.of(school.signer.public_key)
    with Replica(registry, trust, base, {FEED: school.section}, tmp_path) as replica:
        replica.watch()
        assert eventually(lambda: replica.live(FEED) == registry.live(FEED).version)
    _, weights = Verifier(registry, trust, base).fetch(FEED, 4)
    export_folder(tmp_path / "out", registry.manifest(FEED, 4), weights, PortableBase(name="base"))
    exported = replace(weights, names=None)
    assert pack_parts(read_folder(tmp_path / "out")[1]) == pack_parts(exported)

    redis_client.delete(keys.blob(FEED, manifests[3].parts["sediment"]))
    with pytest.raises(UnknownVersion):
        registry.rollback(FEED, 3, expected_revision=registry.live(FEED).revision, **WHO)


@pytest.mark.usefixtures("more")
def test_publishing_misses_a_part_that_is_not_there(school: School, registry: Registry) -> None:
    turn(school)
    manifest = school.manifest(1)
    lost = replace(manifest, version=2, cycle_id="another", parts={**manifest.parts, "sediment": "0" * 64})
    with registry.lease(FEED, "learner", ttl_s=30) as lease:
        assert lease.acquire()
        with pytest.raises(ArtefactError) as caught:
            registry.publish(school.signer.sign(lost), lease=lease, expected_revision=1, at=START)
    assert caught.value.code == "missing_blob"
    assert registry.versions(FEED) == [1]


def has(get: Callable[[], bytes]) -> bool:
    try:
        return bool(get())
    except ArtefactError:
        return False


# --- the recipe


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_version_is_learned_again_from_its_recipe_and_its_parent(dtype: str, school: School) -> None:
    """By nothing else than the parts, the manifest's labels and the buffer: a learner with another config does it."""
    school.section = section(learner={"dtype": dtype})
    for _ in range(3):
        turn(school)
    school.section = section(learner={"dtype": dtype, "learning_rate": 0.5, "batch_examples": 7, "seed": 99})
    for version in (1, 2, 3):
        manifest = school.manifest(version)
        recipe = decode_recipe(school.registry.get_part(manifest, "recipe"))
        assert (recipe.parent, recipe.dtype, recipe.base_fingerprint) == (version - 1, dtype, manifest.base_fingerprint)
        again = learned_again(school, recipe, version)
        parts = {name: sha256(data).hexdigest() for name, data in pack_parts(again).items()}
        assert parts.items() <= manifest.parts.items()
    assert recipe.plan.replayed


def learned_again(school: School, recipe: Recipe, version: int) -> Weights:
    settings = FeedConfig.model_validate(recipe.settings)
    learner = settings.learner.model_copy(update={"threads": recipe.threads, "dtype": recipe.dtype})
    settings = settings.model_copy(update={"learner": learner})
    model = LoraModel(school.base, task_named(settings.task), settings.labels, learner)
    versions = Versions(FEED, school.registry, Trust.of(school.signer.public_key), settings, model)
    cycle = Cycle(
        cycle_id="again",
        feed=FEED,
        parent=recipe.parent,
        version=version,
        plan=recipe.plan,
        seed=recipe.seed,
        taken_at=START,
    )
    training = Training(FEED, settings, school.buffer, model)
    return training.update(cycle, versions.load(recipe.parent)).result.weights


def test_equal_updates_have_equal_recipes_and_no_text_is_in_one(
    school: School, untouched: School, registry: Registry, tmp_path: Path
) -> None:
    for one in (school, untouched):
        turn(one)
        turn(one)
    for version in (1, 2):
        assert school.parts(version)["recipe"] == untouched.parts(version)["recipe"]
    written = registry.get_part(school.manifest(2), "recipe").decode()
    plan = decode_recipe(written.encode()).plan
    texts = [example.text for example in school.buffer.ledger.examples(FEED, plan.fresh)]
    assert texts
    assert not [text for text in texts if text in written]
    assert str(tmp_path) not in written, "no path of this machine"
    assert set(json.loads(written)["libraries"]) >= {
        "driftline",
        "torch",
        "transformers",
        "peft",
        "tokenizers",
        "numpy",
        "python",
    }
