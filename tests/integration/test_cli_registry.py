"""Verbs that need a Redis, on a real embedded one: import, promote, rollback, history, export. PEFT is the oracle."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load, load_file, save_file
from structlog.testing import capture_logs
from transformers import AutoModel

from driftline.artefact.manifest import decode_manifest, load_or_create_keys
from driftline.artefact.probe import PROBE_TEXTS
from driftline.artefact.weights import pack_tensors
from driftline.assembly.wiring import (
    build_base,
    build_ingest,
    build_learner_service,
    build_registry,
    build_topics,
    open_buffer,
)
from driftline.cli.admin import open_registry, require_unchanged
from driftline.clock import SystemClock
from driftline.config import Config, load_config
from driftline.errors import BufferStoreError, ConfigError, RegistryConflict, RegistryError
from driftline.names import Keys, StateFiles
from driftline.records import GateDecision, Manifest
from driftline.registry import Registry, connect
from driftline.registry.embedded import running_embedded, start_embedded, stop_embedded
from tests.fixtures import buffers
from tests.fixtures.cli import Driftline

RANK = 4


@pytest.fixture
def config(tmp_path: Path, tiny_base_dir: Path) -> Iterator[Config]:
    """One feed on the tiny base, with a Redis of its own that is stopped at the end."""
    path = tmp_path / "driftline.toml"
    path.write_text(
        f'[base]\nmodel = "{tiny_base_dir}"\nmax_tokens = 32\ndevice = "cpu"\n'
        f'[feed.reviews]\nlabels = ["bad", "fine", "good"]\n[feed.reviews.learner]\nrank = {RANK}\nalpha = {2 * RANK}\n'
    )
    yield load_config(path)
    stop_embedded(StateFiles(tmp_path / "state"))


@pytest.fixture
def running(config: Config) -> Config:
    """The same with its Redis running, as `up` leaves it: the reading verbs start none."""
    start_embedded(StateFiles(config.state.path))
    return config


def peft_folder(folder: Path, base_dir: Path, seed: int, rank: int = RANK) -> Path:
    """An adapter as PEFT itself writes it, with a head of ours beside it; all weights random."""
    torch.manual_seed(seed)
    options = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["query", "value"], task_type="FEATURE_EXTRACTION")
    model = get_peft_model(AutoModel.from_pretrained(base_dir, dtype=torch.float32), options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 4)
    model.save_pretrained(str(folder))
    hidden = model.config.hidden_size
    head = {"head.weight": torch.randn(3, hidden) / 8, "head.bias": torch.randn(3)}
    save_file(head, folder / "driftline_head.safetensors")
    return folder


def imported(driftline: Driftline, folder: Path, *options: str) -> int:
    result = driftline("import", str(folder), "--json", *options)
    assert result.code == 0, result.err
    return int(json.loads(result.out)["version"])


def two_promoted(driftline: Driftline, folder: Path, tiny_base_dir: Path) -> None:
    """Versions 1 and 2, imported and made live one after the other."""
    for seed in (1, 2):
        imported(driftline, peft_folder(folder / str(seed), tiny_base_dir, seed), "--re-sign")
        assert driftline("promote", str(seed)).code == 0


def decoded(registry: Registry, version: int) -> Manifest:
    return decode_manifest(registry.manifest("reviews", version).document)


def ruined(config: Config, version: int, **changes: Any) -> int:
    """The version again, as a rejected candidate signed here; with NaN in its head if nothing else changes."""
    registry, signer = build_registry(config), load_or_create_keys(StateFiles(config.state.path))
    manifest = decoded(registry, version)
    head = load(registry.get_blob("reviews", manifest.parts["head"]))
    if not changes:
        head["head.bias"][1] = torch.nan
    new = registry.next_version("reviews")
    sha256 = registry.put_blob("reviews", pack_tensors(head))
    manifest = replace(
        manifest, version=new, cycle_id=f"ruined-{new}", parts={**manifest.parts, "head": sha256}, **changes
    )
    with registry.lease("reviews", "learner", ttl_s=30) as lease:
        assert lease.acquire()
        registry.publish(signer.sign(manifest), lease=lease, expected_revision=0, at=manifest.created_at)
    return new


def live(driftline: Driftline) -> dict[str, Any]:
    document = json.loads(driftline("status", "--json").out)
    return dict(document["feeds"]["reviews"])


def peft_logits(config: Config, folder: Path) -> torch.Tensor:
    """(8, 3): the probe's logits from PEFT and the head file alone."""
    base = build_base(config)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(config.base.model, dtype=torch.float32), folder).eval()
    head = load_file(folder / "driftline_head.safetensors")
    rows = []
    for text in PROBE_TEXTS:
        ids = torch.tensor(base.tokenize([text]))  # (1, T): alone, so that no padding is involved
        with torch.inference_mode():
            pooled = model(input_ids=ids).last_hidden_state.mean(1)[0]
        unit = pooled / pooled.norm() * pooled.shape[0] ** 0.5
        rows.append(head["head.weight"] @ unit + head["head.bias"])
    return torch.stack(rows)


def test_promote_rollback_pause_and_resume(
    driftline: Driftline, running: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    first = imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
    second = imported(driftline, peft_folder(tmp_path / "b", tiny_base_dir, 2), "--re-sign")
    assert (first, second) == (1, 2)
    assert live(driftline)["version"] == 0

    assert driftline("promote", "1", "--actor", "ana", "--reason", "looks right").code == 0
    aside = "version 2 does not build on 1: examples that only versions left behind learned are set aside"
    assert aside in driftline("promote", "2").out
    state = live(driftline)
    assert (state["version"], state["revision"], state["paused"]) == (2, 2, False)

    back = driftline("rollback", "--reason", "angry users")
    assert "version 2 → 1 (revision 3); automatic promotion is paused: `driftline resume`\n" in back.out
    assert back.out.count("\n") == 1, "it is the one that was live just before: nothing more to say"
    state = live(driftline)
    assert (state["version"], state["revision"], state["paused"]) == (1, 3, True)
    assert "angry users" in state["awaited"]

    elsewhere = driftline("resume", "--relearn")
    assert (elsewhere.code, "on the learner's machine" in elsewhere.err) == (1, True)
    assert live(driftline)["paused"]
    files = StateFiles(running.state.path)
    assert not files.buffer.exists()
    assert not files.holdout_key.exists()
    open_buffer(running).close()
    nothing = "there was nothing to learn again: no example is set aside"
    assert driftline("resume", "--relearn").out == f"reviews goes on from version 1; {nothing}\n"
    assert "was not paused" in driftline("resume").out
    assert not live(driftline)["paused"]
    again = driftline("resume", "--relearn")
    assert (again.code, again.out) == (0, f"reviews was not paused; version 1 stays live; {nothing}\n")
    assert driftline("pause", "--reason", "holiday", "--actor", "bo").code == 0
    assert live(driftline)["paused"]
    refused = driftline("update-now")
    assert (refused.code, "paused" in refused.err) == (1, True)

    document = json.loads(driftline("history", "--json").out)
    assert [entry["action"] for entry in document["audit"]] == [
        "promoted",
        "promoted",
        "rolled_back",
        "resumed",
        "paused",
    ], "what does nothing leaves no entry"
    assert (document["audit"][0]["actor"], document["audit"][0]["reason"]) == ("ana", "looks right")
    assert [version["decision"] for version in document["versions"]] == ["rejected", "rejected"]
    shown = driftline("history").out
    assert "→ 1" in shown
    assert "2 → 1" in shown
    assert [version["withdrawn"] for version in document["versions"]] == [False, True]
    assert "imported, not judged by the gate" in shown
    assert "rejected" not in shown


@pytest.mark.usefixtures("running")
def test_a_second_pause_says_whose_reason_stands(driftline: Driftline) -> None:
    first = driftline("pause", "--reason", "refunds are wrong", "--actor", "ana")
    assert first.out == "reviews is paused; version 0 stays live: `driftline resume` goes on\n"
    second = driftline("pause", "--reason", "holiday", "--actor", "bo")
    assert second.code == 0
    assert re.match(
        r"reviews was already paused by ana since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: refunds are wrong; the reason that "
        r"was given now stands in the audit \(`driftline history`\); version 0 stays live",
        second.out,
    )
    assert live(driftline)["pause_reason"] == "refunds are wrong"
    audit = json.loads(driftline("history", "--json").out)["audit"]
    assert [(one["actor"], one["reason"]) for one in audit] == [("ana", "refunds are wrong"), ("bo", "holiday")]
    assert driftline("resume").code == 0
    assert driftline("pause").out.startswith("reviews is paused; ")


def learned_by_a_version_that_was_live(config: Config) -> int:
    """Examples in the buffer whose only version, 1, is not what Redis names as live; returns how many."""
    with closing(open_buffer(config)) as buffer:
        events = [buffers.event(f"e{i}", i, label="good") for i in range(20)]
        answers = [buffers.prediction(f"e{i}", None, 0, i) for i in range(20)]
        buffer.intake.append([*events, *answers], {}, SystemClock().now())
        fresh = [one.seq for one in buffer.ledger.fresh("reviews", 20)]
        buffer.ledger.take(buffers.cycle(1, fresh))
        buffer.ledger.ack("cycle-1", "promoted")
        buffer.ledger.reconcile("reviews", 1, 0)
    return len(fresh)


def test_examples_set_aside_are_learned_again_also_of_a_feed_that_is_not_paused(
    driftline: Driftline, running: Config
) -> None:
    lost = learned_by_a_version_that_was_live(running)
    told = driftline("resume", "--relearn").out
    assert told == f"reviews goes on from version 0; {lost} examples will be learned again\n"
    audit = json.loads(driftline("history", "--json").out)["audit"]
    assert [one["action"] for one in audit] == ["paused", "resumed"], "it pauses for itself"
    assert live(driftline)["counts"]["fresh"] == lost


def test_status_says_that_examples_are_counted_as_of_before_a_rollback(driftline: Driftline, running: Config) -> None:
    def shown() -> str:
        return next(line for line in driftline("status").out.splitlines() if line.startswith("  examples"))

    learned = learned_by_a_version_that_was_live(running)
    assert "as of" not in shown()
    with closing(build_registry(running)) as registry:
        at = registry.rollback(
            "reviews", 0, expected_revision=0, actor="ana", reason="wrong", at=SystemClock().now()
        ).revision
    assert f"{learned} learned" in shown()
    assert f"(as of before revision {at}: the learner's next look works out what it makes of them)" in shown()
    assert (live(driftline)["revision"], live(driftline)["counts_at_revision"]) == (at, 0)
    with closing(open_buffer(running)) as buffer:  # as the learner does at each turn
        buffer.ledger.reconcile("reviews", 0, at)
    assert f"{learned} set aside" in shown()
    assert "as of" not in shown()


def test_a_rollback_that_goes_further_than_one_change_says_so(
    driftline: Driftline, running: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    two_promoted(driftline, tmp_path, tiny_base_dir)
    assert driftline("rollback").code == 0
    assert driftline("pause").code == 0
    path = running.state.path.parent / "driftline.toml"
    back = driftline("rollback", "-c", str(path)).out.splitlines()
    assert "version 1 → 0" in back[0]
    assert back[1:] == [
        "version 0 was live before 1 was first promoted; the last change came from 2: "
        f"`driftline rollback 2 -c {path}` goes to that one"
    ]
    assert "→ 2" in driftline("rollback", "2").out
    limited = json.loads(driftline("history", "--limit", "1", "--json").out)
    assert [entry["version"] for entry in limited["audit"]] == [2]
    assert [version["version"] for version in limited["versions"]] == [2]


def test_an_asked_update_says_whether_a_learner_runs(driftline: Driftline, running: Config) -> None:
    alone = driftline("update-now").out
    assert alone == "no learner runs for reviews now; the first one that does will update at once\n"
    with closing(build_registry(running)) as registry, registry.lease("reviews", "learner", ttl_s=30) as lease:
        assert lease.acquire()
        assert "asked the learner of reviews for an update" in driftline("update-now").out


def test_a_change_of_what_is_live_is_seen(
    driftline: Driftline, config: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
    registry = build_registry(config)
    before = registry.live("reviews")
    require_unchanged(registry, before)
    assert driftline("promote", "1").code == 0
    with pytest.raises(RegistryConflict, match="changed meanwhile"):
        require_unchanged(registry, before)


def test_what_replicas_would_refuse_does_not_go_live(
    driftline: Driftline, running: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    files = StateFiles(running.state.path)
    imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
    assert driftline("promote", "1").code == 0
    assert driftline("rollback", "0").code == 0
    assert "→ 0" in driftline("history").out
    files.signing_key.unlink()
    lost = driftline("promote", "1")
    assert (lost.code, "restore it" in lost.err) == (2, True)
    files.public_key.unlink()
    foreign = driftline("promote", "1")
    assert (foreign.code, "not trusted" in foreign.err) == (1, True)
    assert live(driftline)["version"] == 0


def test_a_version_that_replicas_would_refuse_for_its_weights_does_not_go_live(
    driftline: Driftline, running: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
    broken = {"not_finite": ruined(running, 1), "wrong_shape": ruined(running, 1, labels=("good", "bad"))}
    for version in broken.values():
        for verb in ("promote", "rollback"):
            refused = driftline(verb, str(version))
            assert refused.code == 1, refused.out
    assert "holds NaN" in driftline("promote", str(broken["not_finite"])).err
    assert "head.weight is (3, " in driftline("promote", str(broken["wrong_shape"])).err
    assert (live(driftline)["version"], live(driftline)["revision"]) == (0, 0)


def test_a_rollback_to_what_was_live_checks_signature_and_blobs_without_the_base(
    driftline: Driftline, running: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    two_promoted(driftline, tmp_path, tiny_base_dir)
    path = tmp_path / "driftline.toml"
    path.write_text(path.read_text().replace(running.base.model, "no-such-model-anywhere"))
    assert driftline("promote", "1").code != 0
    client, registry = connect(start_embedded(StateFiles(running.state.path))), build_registry(running)
    body = Keys(running.redis.prefix).blob("reviews", decoded(registry, 1).parts["body"])
    chunk = client.hget(body, "0")
    client.hset(body, "0", b"damaged")
    assert "do not fit its hash" in driftline("rollback").err
    client.hset(body, "0", chunk)
    assert driftline("rollback").code == 0
    client.delete(body)
    assert "no longer kept" in driftline("promote", "1").err
    assert live(driftline)["version"] == 1


def test_check_tells_a_live_version_that_nobody_would_serve(
    driftline: Driftline, running: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    def found() -> dict[str, bool]:
        checks = json.loads(driftline("check", "--json").out)["checks"]
        return {check["name"]: check["ok"] for check in checks if check["name"] in ("keys", "signature of reviews")}

    files = StateFiles(running.state.path)
    imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
    assert driftline("promote", "1").code == 0
    assert found() == {"keys": True, "signature of reviews": True}
    files.signing_key.unlink()
    assert found() == {"keys": False}
    files.public_key.unlink()
    assert found() == {"keys": True, "signature of reviews": False}


@pytest.mark.parametrize(
    ("name", "before", "after", "hint"),
    [
        (
            "buffer",
            "[feed.reviews.learner]",
            "[feed.reviews.evaluation]\nholdout_share = 0.3\n[feed.reviews.learner]",
            "put 0.1 back",
        ),
        (
            "buffer",
            "[feed.reviews.learner]",
            "[ingest]\nof_ranks = 2\n[feed.reviews.learner]",
            "set ingest.of_ranks to 1",
        ),
        ("live version of reviews", "max_tokens = 32", "max_tokens = 16", "base.max_tokens 32, here it is 16"),
        ("live version of reviews", "max_tokens = 32", 'max_tokens = 32\npooling = "cls"', "trained with base."),
        (
            "labels of reviews",
            '"bad", "fine"',
            '"bad", "fin"',
            "leaves out 'fine', which the feed's state has: put it back",
        ),
        ("live version of reviews", "rank = 4", "rank = 8", "feed.reviews.learner.rank = 8"),
        ("live version of reviews", "alpha = 8", "alpha = 16", "feed.reviews.learner.alpha = 16"),
        ("live version of reviews", "alpha = 8", 'alpha = 8\ntarget_modules = ["key"]', "learner.target_modules"),
    ],
)
def test_check_tells_what_the_processes_would_refuse(
    driftline: Driftline,
    running: Config,
    tmp_path: Path,
    tiny_base_dir: Path,
    name: str,
    before: str,
    after: str,
    hint: str,
) -> None:
    def wrong() -> dict[str, str]:
        checks = json.loads(driftline("check", "--json").out)["checks"]
        return {one["name"]: one["detail"] for one in checks if not one["ok"] and "port" not in one["name"]}

    open_buffer(running).close()
    imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
    assert driftline("promote", "1").code == 0
    assert wrong() == {}
    path = tmp_path / "driftline.toml"
    path.write_text(path.read_text().replace(before, after))
    found = wrong()
    assert set(found) == {name}
    assert hint in found[name]


def test_check_tells_of_an_anchor_that_the_learner_could_not_compare_with(
    driftline: Driftline, running: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    with closing(build_registry(running)) as registry, registry.lease("reviews", "learner", ttl_s=30) as lease:
        assert lease.acquire()
        imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
        first = decoded(registry, 1)
        decision = GateDecision(promote=True, reasons=(), becomes_anchor=True)
        version = registry.next_version("reviews")
        learned = replace(first, version=version, cycle_id="c2", decision=decision, rank=2)
        signed = load_or_create_keys(StateFiles(running.state.path)).sign(learned)
        registry.publish(signed, lease=lease, expected_revision=0, at=first.created_at)
        assert registry.live("reviews").anchor == 2
    assert driftline("promote", "1").code == 0
    checks = {one["name"]: one for one in json.loads(driftline("check", "--json").out)["checks"]}
    assert checks["live version of reviews"]["ok"]
    assert not checks["anchor of reviews"]["ok"]
    assert "learner.rank = 4: version 2" in checks["anchor of reviews"]["detail"]


def test_check_warns_of_a_base_that_cannot_read_the_feed(driftline: Driftline, config: Config) -> None:
    def told() -> dict[str, Any]:
        found = json.loads(driftline("check", "--json").out)["checks"]
        return next((one for one in found if one["name"] == "texts of reviews"), {})

    assert told() == {}, "no text has come"
    with closing(open_buffer(config)) as buffer:
        buffer.intake.append([buffers.event("a", 0, "это плохая игра", "bad")], {}, SystemClock().now())
    assert (told()["ok"], told()["warns"]) == (True, True)
    assert "100 % of the words as unknown or letter by letter" in told()["detail"]
    assert "warns    texts of reviews" in driftline("check").out


def test_check_tells_of_feeds_that_the_config_does_not_name_any_more(driftline: Driftline, config: Config) -> None:
    open_buffer(config).close()
    assert "also holds" not in driftline("check").out
    path = config.state.path.parent / "driftline.toml"
    path.write_text(path.read_text().replace("feed.reviews", "feed.opinions"))
    open_buffer(load_config(path)).close()
    assert "also holds reviews (0 examples), which this config does not name" in driftline("check").out


def test_check_tells_that_the_buffer_of_read_topics_is_gone(
    driftline: Driftline, config: Config, tmp_path: Path
) -> None:
    def told() -> list[str]:
        checks = json.loads(driftline("check", "--json").out)["checks"]
        return [one["detail"] for one in checks if one["name"] == "positions of reviews" and not one["ok"]]

    def ingest() -> None:
        with (
            closing(open_buffer(config)) as buffer,
            closing(build_topics(config)) as topics,
            closing(build_ingest(config, topics, buffer, SystemClock())) as reading,
        ):
            assert reading.step(5.0) == 1

    (tmp_path / "events.jsonl").write_text('{"text": "fine"}\n')
    assert driftline("produce", "events.jsonl").code == 0
    assert told() == []
    ingest()
    assert told() == []
    for file in config.state.path.glob("buffer.sqlite3*"):
        file.unlink()
    missing = told()
    with pytest.raises(BufferStoreError) as refused:
        ingest()
    assert missing == [str(refused.value)]
    assert told() == missing, "the buffer is there again, and empty"


def test_reading_a_buffer_without_its_key_makes_no_other(driftline: Driftline, config: Config) -> None:
    key = StateFiles(config.state.path).holdout_key
    open_buffer(config).close()
    key.unlink()
    checks = {one["name"]: one for one in json.loads(driftline("check", "--json").out)["checks"]}
    assert (checks["buffer"]["ok"], "restore the key file" in checks["buffer"]["detail"]) == (False, True)
    told = json.loads(driftline("status", "--json").out)["problems"]
    assert not any("key" in problem for problem in told), "reading needs none"
    assert not key.exists()


def test_a_verb_stops_the_redis_that_only_it_needed(driftline: Driftline, config: Config) -> None:
    files = StateFiles(config.state.path)
    assert driftline("pause").code == 0
    assert running_embedded(files) is None
    start_embedded(files)
    assert driftline("resume").code == 0
    assert running_embedded(files) is not None


def test_a_verb_leaves_the_redis_that_others_use_by_now(config: Config) -> None:
    files = StateFiles(config.state.path)
    with open_registry(config) as registry:
        registry.live("reviews")
        learner = connect(start_embedded(files), "a learner")
        assert learner.ping()
    with closing(learner):
        assert running_embedded(files) is not None
        assert learner.ping()
    with open_registry(config) as registry:
        registry.live("reviews")
    assert running_embedded(files) is not None, "this one did not start it"


@pytest.mark.usefixtures("running")
def test_a_stale_revision_changes_nothing(driftline: Driftline, tmp_path: Path, tiny_base_dir: Path) -> None:
    imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 1), "--re-sign")
    assert driftline("promote", "1").code == 0
    stale = driftline("rollback", "0", "--revision", "0")
    assert stale.code == 1
    assert live(driftline)["version"] == 1
    assert driftline("rollback", "0", "--revision", "1").code == 0
    assert live(driftline)["version"] == 0


@pytest.mark.usefixtures("config")
def test_unknown_versions_are_told_from_known_ones(driftline: Driftline) -> None:
    result = driftline("promote", "7")
    assert result.code == 1
    assert "no version 7" in result.err
    assert "nothing to roll back" in driftline("rollback").err
    nothing = driftline("update-now")
    assert nothing.code == 0 or "status" in nothing.err


def test_what_comes_in_answers_as_it_did_in_peft(
    driftline: Driftline, config: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    folder = peft_folder(tmp_path / "a", tiny_base_dir, 3)
    version = imported(driftline, folder, "--re-sign")
    manifest = decoded(build_registry(config), version)
    assert torch.allclose(torch.tensor(manifest.probe.logits), peft_logits(config, folder), atol=1e-4)
    assert manifest.imported_from == "a"
    assert not manifest.decision.promote


def test_what_goes_out_loads_in_peft_and_comes_back(
    driftline: Driftline, config: Config, tmp_path: Path, tiny_base_dir: Path
) -> None:
    source = peft_folder(tmp_path / "a", tiny_base_dir, 4)
    version = imported(driftline, source, "--re-sign")
    out = tmp_path / "out"
    assert driftline("export", str(version), str(out)).code == 0
    assert torch.allclose(peft_logits(config, out), peft_logits(config, source), atol=1e-5)
    assert "PeftModel.from_pretrained" in (out / "README.md").read_text()

    again = imported(driftline, out)
    registry = build_registry(config)
    before, after = (decoded(registry, v) for v in (version, again))
    assert (before.parts["body"], before.parts["head"]) == (after.parts["body"], after.parts["head"])
    assert after.imported_from == f"reviews version {version}"
    assert driftline("export", str(version), str(out)).code == 2  # not empty


@pytest.mark.usefixtures("config")
def test_what_does_not_fit_is_refused_by_name(driftline: Driftline, tmp_path: Path, tiny_base_dir: Path) -> None:
    foreign = peft_folder(tmp_path / "a", tiny_base_dir, 5)
    unsigned = driftline("import", str(foreign))
    assert (unsigned.code, "--re-sign" in unsigned.err) == (1, True)

    wide = driftline("import", str(peft_folder(tmp_path / "wide", tiny_base_dir, 5, rank=8)), "--re-sign")
    assert (wide.code, "rank 8" in wide.err) == (1, True)

    head = load_file(foreign / "driftline_head.safetensors")
    save_file({**head, "head.bias": torch.tensor([0.0, float("nan"), 0.0])}, foreign / "driftline_head.safetensors")
    broken = driftline("import", str(foreign), "--re-sign")
    assert (broken.code, "NaN" in broken.err) == (1, True)

    assert driftline("import", str(tmp_path / "nosuch")).code == 2
    assert json.loads(driftline("history", "--json").out)["versions"] == []


@pytest.mark.usefixtures("config")
def test_a_folder_that_was_tampered_with_is_refused(driftline: Driftline, tmp_path: Path, tiny_base_dir: Path) -> None:
    version = imported(driftline, peft_folder(tmp_path / "a", tiny_base_dir, 6), "--re-sign")
    out = tmp_path / "out"
    driftline("export", str(version), str(out))
    manifest = out / "manifest.json"
    envelope = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**envelope, "document": envelope["document"].replace('"seed":0', '"seed":1')}))
    result = driftline("import", str(out))
    assert result.code == 1
    assert "changed after it was signed" in result.err


@pytest.mark.usefixtures("config")
def test_check_finds_everything_usable(driftline: Driftline) -> None:
    result = driftline("check", "--json")
    document = json.loads(result.out)
    wrong = [finding for finding in document["checks"] if not finding["ok"] and "port" not in finding["name"]]
    assert wrong == []
    names = " ".join(finding["name"] for finding in document["checks"])
    assert all(word in names for word in ("config", "state", "topic reviews", "redis", "base model", "labels", "keys"))


def test_check_and_the_reading_verbs_start_nothing(driftline: Driftline, config: Config) -> None:
    files = StateFiles(config.state.path)
    driftline("check")
    assert not files.root.exists()

    start_embedded(files)
    assert live(driftline)["version"] == 0
    stop_embedded(files)
    shown = driftline("check")
    assert "not compared with this config: the embedded Redis is not running: `driftline up` starts it" in shown.out
    unknown = [line.split()[1] for line in shown.out.splitlines() if line.startswith("unknown ")]
    assert (shown.code, unknown) == (1, ["labels", "signature", "live"]), "what was not looked at is not ok"
    status = json.loads(driftline("status", "--json").out)
    assert (status["feeds"]["reviews"]["version"], "not running" in status["problems"][0]) == (None, True)
    history = driftline("history")
    assert (history.code, "not running" in history.err) == (1, True)
    assert running_embedded(files) is None


def test_a_learner_whose_key_is_not_trusted_does_not_start(
    driftline: Driftline, config: Config, tmp_path: Path
) -> None:
    other = StateFiles(tmp_path / "other")
    load_or_create_keys(other)
    load_or_create_keys(StateFiles(config.state.path))
    path = tmp_path / "driftline.toml"
    path.write_text(f'{path.read_text()}[trust]\npublic_keys = ["{other.public_key}"]\n')
    own = str(StateFiles(config.state.path).public_key)
    with pytest.raises(ConfigError, match=own):
        build_learner_service(load_config(path))
    checks = {finding["name"]: finding for finding in json.loads(driftline("check", "--json").out)["checks"]}
    assert (checks["keys"]["ok"], own in checks["keys"]["detail"]) == (False, True)

    path.write_text(path.read_text().replace("public_keys = [", f'public_keys = ["{own}", '))
    assert build_learner_service(load_config(path))


def test_a_learner_does_not_start_on_a_redis_that_evicts(config: Config) -> None:
    client = connect(start_embedded(StateFiles(config.state.path)))
    client.config_set("appendonly", "no")
    with capture_logs() as logs:
        assert build_learner_service(config)
    assert "append-only file is off" in str(logs)
    client.config_set("maxmemory-policy", "allkeys-lru")
    with capture_logs(), pytest.raises(RegistryError, match="CONFIG SET maxmemory-policy noeviction"):
        build_learner_service(config)


def test_status_tells_what_check_finds_wrong_with_redis(driftline: Driftline, running: Config) -> None:
    assert json.loads(driftline("status", "--json").out)["problems"] == []
    with closing(connect(start_embedded(StateFiles(running.state.path)))) as client:
        client.config_set("appendonly", "no")
    result = driftline("status", "--json")
    (problem,) = json.loads(result.out)["problems"]
    assert (result.code, "redis: the append-only file is off, so a crash loses versions" in problem) == (1, True)


@pytest.mark.usefixtures("config")
def test_check_names_a_schedule_that_never_comes(driftline: Driftline, tmp_path: Path) -> None:
    path = tmp_path / "driftline.toml"
    for cron in ("61 * * * *", "0 0 31 2 *"):
        path.write_text(
            path.read_text().partition("[feed.reviews.schedule]")[0] + f'[feed.reviews.schedule]\ncron = "{cron}"\n'
        )
        checks = {finding["name"]: finding for finding in json.loads(driftline("check", "--json").out)["checks"]}
        found = checks["schedule of reviews"]
        assert (found["ok"], f"feed.reviews.schedule.cron = '{cron}'" in found["detail"]) == (False, True)


def test_check_names_what_is_wrong_and_goes_on(driftline: Driftline, config: Config, tmp_path: Path) -> None:
    text = (tmp_path / "driftline.toml").read_text().replace(config.base.model, "no-such-model-anywhere")
    (tmp_path / "driftline.toml").write_text(text + '[serve]\nhost = "0.0.0.0"\n[redis]\nurl = "redis://127.0.0.1:1"\n')
    result = driftline("check", "--json")
    assert result.code == 1
    wrong = {finding["name"]: finding["detail"] for finding in json.loads(result.out)["checks"] if not finding["ok"]}
    assert set(wrong) >= {"redis", "http", "base model"}
    assert "DRIFTLINE_PREDICT_TOKEN" in wrong["http"]
    assert "wrong" in driftline("check").out


HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\r\nproblem: none\u202egnp.exe\u2066\u2028\x08\x7fz"


@pytest.mark.usefixtures("running")
def test_actors_and_reasons_steer_no_terminal(driftline: Driftline, tmp_path: Path, tiny_base_dir: Path) -> None:
    two_promoted(driftline, tmp_path, tiny_base_dir)
    who = ("--actor", HOSTILE, "--reason", HOSTILE)
    verbs = [["promote", "1", *who], ["rollback", "0", *who], ["pause", *who], ["status"], ["update-now"], ["history"]]
    verbs += [["pause", *who, "--json"], ["status", "--json"], ["history", "--json"], ["resume", *who]]
    for arguments in verbs:
        result = driftline(*arguments)
        written = result.out + result.err
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", written), arguments
        assert not re.search("^problem: none", written, re.M), arguments
    assert "a\\x1b[31mred" in driftline("history").out
    assert json.loads(driftline("history", "--json").out)["audit"][-1]["actor"] == HOSTILE
