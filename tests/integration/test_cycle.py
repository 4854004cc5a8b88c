"""The learner's cycle on a tiny base, a real buffer and a real Redis: each outcome, and each way to be interrupted."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from driftline.base import Base, load_base
from driftline.buffer import FeedCounts
from driftline.config import BaseModelConfig
from driftline.errors import ConfigError, LeaseLost, RegistryLost, RegistryUnavailable
from driftline.names import Keys
from driftline.records import GateDecision
from driftline.registry import Registry, connect
from driftline.tasks import task_named
from learner.cycle import CycleReport, Learner
from learner.model import LoraModel
from tests.fixtures.learning import FEED, LABELS, START, WORDS, Interposed, School, reviews, section
from tests.fixtures.redis import RedisProcess

WHO: dict[str, Any] = {"actor": "ana", "reason": "test", "at": START}


class Crash(Exception):
    """Stands for the end of the process."""


def crash() -> None:
    raise Crash


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu", max_tokens=64))


@pytest.fixture
def school(registry: Registry, base: Base, tmp_path: Path) -> Iterator[School]:
    school = School(folder=tmp_path / "school", registry=registry, base=base)
    yield school
    school.close()


@pytest.fixture
def forgetful(registry: Registry, base: Base, tmp_path: Path) -> Iterator[School]:
    """One whose learner replays nothing, so that a flipped stretch of the stream ruins a candidate."""
    wanted = section(learner={"strategy": "naive", "max_attempts": 2})
    school = School(folder=tmp_path / "forgetful", registry=registry, base=base, section=wanted)
    yield school
    school.close()


def turn(school: School, learner: Learner, count: int = 80, *, flipped: bool = False) -> CycleReport:
    """So many more examples, and the turn that learns from them."""
    school.add(count, flipped=flipped)
    learner.keep_house()
    report = learner.turn()
    assert report is not None
    return report


def counts(school: School) -> FeedCounts:
    return school.buffer.counts(FEED)


def failed_codes(decision: GateDecision | None) -> set[str]:
    assert decision is not None
    return {reason.code for reason in decision.reasons if not reason.holds}


def roll_back(school: School, version: int | None) -> None:
    school.registry.rollback(FEED, version, expected_revision=school.registry.live(FEED).revision, **WHO)


# --- outcomes


def test_a_turn_takes_learns_publishes_and_acknowledges(school: School) -> None:
    learner = school.learner()
    assert learner.turn() is None
    school.add(60)
    expected = school.fresh()
    report = learner.turn()
    assert report is not None
    assert (report.outcome, report.cycle.parent, report.cycle.version) == ("promoted", 0, 1)
    assert report.cycle.plan.fresh == tuple(expected)
    assert (school.live(), school.registry.live(FEED).revision) == (1, 1)
    manifest = school.manifest(1)
    assert manifest.cycle_id == report.cycle.cycle_id
    assert sum(last - first + 1 for first, last in manifest.examples.fresh) == len(expected) == manifest.fresh_examples
    assert (counts(school).learned, counts(school).taken, counts(school).fresh) == (len(expected), 0, 0)
    assert [(row.cycle.version, row.outcome) for row in school.buffer.ledger.cycles(FEED)] == [(1, "promoted")]
    assert learner.turn() is None


def test_versions_build_on_each_other_and_holdouts_are_never_trained_on(school: School) -> None:
    learner = school.learner()
    reports = [turn(school, learner, 60) for _ in range(3)]
    assert [report.cycle.parent for report in reports] == [0, 1, 2]
    assert school.buffer.ledger.lineage(FEED, 3) == [3, 2, 1, 0]
    held_out = {seq for segment in school.buffer.exams.segments(FEED) for seq in segment.holdouts}
    trained = [{*report.cycle.plan.fresh, *report.cycle.plan.replayed} for report in reports]
    assert held_out
    assert not held_out & set().union(*trained)
    assert reports[0].cycle.plan.replayed == ()
    assert set(reports[1].cycle.plan.replayed) <= set(reports[0].cycle.plan.fresh)
    assert reports[2].trained_examples == len(reports[2].cycle.plan.fresh) + len(reports[2].cycle.plan.replayed)
    exam = school.manifest(3).evaluation["pooled"]
    assert exam.accuracy > 0.8
    assert exam.macro_f1 is not None
    assert exam.macro_f1 > 0.8
    assert {label: recall.n for label, recall in exam.recall.items()} == Counter(
        example.label for example in school.buffer.ledger.examples(FEED, sorted(held_out))
    )
    assert school.manifest(3).broken_words == school.base.broken_words(
        [example.text for example in school.buffer.ledger.examples(FEED, reports[2].cycle.plan.fresh)]
    )


def test_a_tick_needs_min_examples_and_an_asked_update_one(school: School) -> None:
    learner = school.learner()
    school.add(20)
    assert 0 < len(school.fresh()) < 16
    assert learner.turn() is None
    assert not learner.ready()
    report = learner.turn(at_least=1)
    assert report is not None
    assert report.outcome == "promoted"
    assert learner.turn(at_least=1) is None


def test_max_examples_caps_a_cycle(registry: Registry, base: Base, tmp_path: Path) -> None:
    wanted = section(schedule={"min_examples": 16, "max_examples": 20})
    school = School(folder=tmp_path, registry=registry, base=base, section=wanted)
    report = turn(school, school.learner(), 60)
    assert len(report.cycle.plan.fresh) == 20
    assert len(school.fresh()) > 0
    school.close()


def test_a_ruined_candidate_is_rejected_on_past_segments_and_its_examples_come_back(forgetful: School) -> None:
    learner = forgetful.learner()
    for _ in range(2):
        turn(forgetful, learner)
    before = counts(forgetful)
    report = turn(forgetful, learner, 60, flipped=True)
    assert report.outcome == "rejected"
    reasons = [reason for reason in report.decision.reasons if not reason.holds] if report.decision else []
    assert any(str(reason.reference).startswith("segment:") for reason in reasons)
    assert forgetful.live() == 2
    assert set(report.cycle.plan.fresh) <= set(forgetful.fresh())
    assert counts(forgetful).learned == before.learned
    assert forgetful.registry.versions(FEED) == [1, 2, 3]
    assert not forgetful.manifest(3).decision.promote


def test_returned_examples_start_no_update_of_their_own_and_are_retired_after_the_last_attempt(
    forgetful: School,
) -> None:
    learner = forgetful.learner()
    for _ in range(3):
        turn(forgetful, learner)
    first = turn(forgetful, learner, 40, flipped=True)
    assert counts(forgetful).returned == len(first.cycle.plan.fresh)
    assert learner.turn() is None, "nothing new came, so the same candidate would only be rejected again"
    second = turn(forgetful, learner, 30, flipped=True)
    assert second.outcome == "rejected"
    assert second.cycle.parent == 3
    assert set(first.cycle.plan.fresh) < set(second.cycle.plan.fresh)
    assert {e.seq for e in forgetful.buffer.ledger.retired(FEED, 1000)} == set(first.cycle.plan.fresh)
    assert not set(first.cycle.plan.fresh) & set(forgetful.fresh())


def test_retired_examples_live_on_in_replay(forgetful: School) -> None:
    learner = forgetful.learner()
    forgetful.add(120)
    given_up = forgetful.fresh()[:10]
    forgetful.buffer.ledger.retire_overflow(FEED, keep=len(forgetful.fresh()) - 10)
    report = learner.turn()
    assert report is not None
    assert report.outcome == "promoted"
    assert report.cycle.plan.retired == tuple(given_up)
    assert not set(given_up) & set(report.cycle.plan.fresh)
    assert counts(forgetful).remembered == 10
    state = forgetful.learner()._shop.versions.load(1).state
    assert state is not None
    assert set(given_up) <= {seq for seq, _ in state.reservoir.entries}


def test_a_candidate_that_is_not_finite_is_rejected_and_never_live(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    wanted = section(learner={"learning_rate": 3e38})
    school = School(folder=tmp_path, registry=registry, base=base, section=wanted)
    report = turn(school, school.learner())
    assert report.outcome == "rejected"
    assert "not_finite" in failed_codes(report.decision)
    assert school.live() == 0
    assert all(torch.isfinite(torch.tensor(school.manifest(1).probe.logits)).flatten())
    school.close()


def test_the_anchor_is_compared_with_where_it_is_not_the_incumbent(school: School) -> None:
    learner = school.learner()
    for _ in range(2):
        turn(school, learner)
    anchor = school.registry.live(FEED).anchor
    other = 3 - anchor
    school.registry.promote(FEED, other, expected_revision=2, **WHO)
    report = turn(school, learner)
    assert report.decision is not None
    assert report.cycle.parent == other
    assert {reason.against for reason in report.decision.reasons} == {"incumbent", "anchor"}


# --- somebody decides otherwise while a candidate is made


@pytest.mark.parametrize("step", ["put_blob", "publish"])
def test_a_promotion_by_hand_meanwhile_leaves_the_candidate_rejected(school: School, step: str) -> None:
    turn(school, school.learner())
    turn(school, school.learners[0])
    registry = Interposed(school.registry)
    school.learners[0].lease.release()
    learner = school.learner(registry=registry)
    registry.before(step, lambda: school.registry.promote(FEED, 1, expected_revision=2, **WHO) and None)
    report = turn(school, learner)
    assert report.outcome == "rejected"
    assert failed_codes(report.decision) == {"incumbent_changed"}
    assert school.live() == 1
    assert failed_codes(school.manifest(3).decision) == {"incumbent_changed"}
    assert set(report.cycle.plan.fresh) <= set(school.fresh())
    assert counts(school).returned == 0, "nothing was judged: it costs them no try"


def test_what_paused_before_the_crash_costs_no_try_after_it(school: School) -> None:
    registry = Interposed(school.registry)
    buffer = Interposed(school.buffer)
    learner = school.learner(registry=registry, buffer=buffer)
    registry.before("publish", lambda: school.registry.pause(FEED, **WHO) and None)
    buffer.before("ledger.ack", crash)
    school.add(80)
    with pytest.raises(Crash):
        learner.turn()
    learner.lease.release()
    report = school.learner().turn()
    assert report is not None
    assert (report.outcome, report.decision, counts(school).returned) == ("rejected", None, 0)


def test_a_revision_that_is_seen_while_the_record_is_read_is_not_taken_for_a_lost_registry(school: School) -> None:
    """Another process rolls back and reconciles the buffer right after this one has read what is live."""
    registry = Interposed(school.registry)
    learner = school.learner(registry=registry)
    first = turn(school, learner)

    def roll_back_and_relearn() -> None:
        roll_back(school, 0)
        live = school.registry.live(FEED)
        school.buffer.ledger.reconcile(FEED, live.version, live.revision)
        school.buffer.ledger.relearn(FEED)

    registry.after("live", roll_back_and_relearn)
    assert learner.turn() is None
    assert set(first.cycle.plan.fresh) <= set(school.fresh())
    assert counts(school).learned == 0


def test_answers_of_an_anchor_are_kept_on_the_holdouts_of_now_only(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    wanted = section(gate={"recent_holdouts": 10}, evaluation={"segment_holdouts": 1})
    school = School(folder=tmp_path, registry=registry, base=base, section=wanted)
    learner = school.learner()
    for _ in range(4):
        turn(school, learner, 40)
    live = registry.live(FEED)
    asked = set(learner._holdouts.exam().seqs)
    assert len(asked) < counts(school).holdouts
    for version in (live.version, live.anchor):
        assert set(school.buffer.exams.cached_predictions(FEED, version)) <= asked
    school.close()


@pytest.mark.parametrize("step", ["put_blob", "publish"])
def test_a_pause_meanwhile_leaves_the_candidate_rejected(school: School, step: str) -> None:
    registry = Interposed(school.registry)
    learner = school.learner(registry=registry)
    registry.before(step, lambda: school.registry.pause(FEED, **WHO) and None)
    report = turn(school, learner)
    assert report.outcome == "rejected"
    assert failed_codes(report.decision) == {"paused"}
    assert (school.live(), school.registry.versions(FEED)) == (0, [1])
    assert learner.turn() is None
    assert (counts(school).returned, school.buffer.ledger.cycles(FEED)[0].outcome) == (0, "unjudged")


def test_a_rollback_meanwhile_is_not_undone(school: School) -> None:
    registry = Interposed(school.registry)
    learner = school.learner(registry=registry)
    turn(school, learner)
    turn(school, learner)
    registry.before("publish", lambda: roll_back(school, None))
    report = turn(school, learner)
    assert report.outcome == "rejected"
    assert school.live() == 1
    assert counts(school).set_aside > 0
    assert learner.turn() is None, "a rollback pauses"


def test_while_paused_nothing_is_taken_and_what_exceeds_the_limit_goes_to_replay(school: School) -> None:
    learner = school.learner(keep_waiting=10)
    school.registry.pause(FEED, **WHO)
    school.add(80)
    waiting = school.fresh()
    assert learner.turn() is None
    assert school.fresh() == waiting
    learner.keep_house()
    assert school.fresh() == waiting[-10:]
    assert counts(school).retired == len(waiting) - 10
    school.registry.resume(FEED, **WHO)
    report = learner.turn(at_least=1)
    assert report is not None
    assert report.cycle.plan.retired == tuple(waiting[:-10])


def test_while_not_paused_nothing_is_retired(school: School) -> None:
    learner = school.learner(keep_waiting=10)
    school.add(80)
    learner.keep_house()
    assert counts(school).retired == 0


# --- rollback and the way on


def test_after_a_rollback_the_next_cycle_starts_from_the_version_rolled_back_to(school: School) -> None:
    learner = school.learner()
    first, second = turn(school, learner), turn(school, learner)
    roll_back(school, None)
    assert learner.turn() is None
    assert counts(school).set_aside == len(second.cycle.plan.fresh)
    school.registry.resume(FEED, **WHO)
    third = turn(school, learner)
    assert (third.cycle.parent, third.cycle.version, third.outcome) == (1, 3, "promoted")
    lost = set(second.cycle.plan.fresh)
    assert not lost & {*third.cycle.plan.fresh, *third.cycle.plan.replayed}
    assert set(third.cycle.plan.replayed) <= set(first.cycle.plan.fresh)
    state = learner._shop.versions.load(3).state
    assert state is not None
    assert not lost & {*state.recent.seqs, *(seq for seq, _ in state.reservoir.entries)}
    steps = learner._shop.versions.load(1).state
    assert steps is not None
    assert state.optimizer.step == steps.optimizer.step + -(-third.trained_examples // 4)


def test_what_was_set_aside_is_learned_again_when_asked(school: School) -> None:
    learner = school.learner()
    turn(school, learner)
    second = turn(school, learner)
    roll_back(school, 1)
    learner.turn()
    assert school.buffer.ledger.relearn(FEED) == len(second.cycle.plan.fresh)
    school.registry.resume(FEED, **WHO)
    third = learner.turn()
    assert third is not None
    assert set(second.cycle.plan.fresh) <= set(third.cycle.plan.fresh)
    assert counts(school).set_aside == 0


def test_rolled_back_to_zero_it_starts_anew(school: School) -> None:
    learner = school.learner()
    first = turn(school, learner)
    roll_back(school, 0)
    assert learner.turn() is None
    school.buffer.ledger.relearn(FEED)
    school.registry.resume(FEED, **WHO)
    again = learner.turn()
    assert again is not None
    assert (again.cycle.parent, again.cycle.plan.replayed) == (0, ())
    assert again.cycle.plan.fresh == first.cycle.plan.fresh
    first_parts, second_parts = school.parts(1), school.parts(2)
    for name in ("body", "head"):
        assert first_parts[name] == second_parts[name], "the same plan from the same start is the same version"


# --- another buffer


@pytest.mark.parametrize("new", [40, 400])
def test_a_replaced_buffer_replays_nothing_under_the_old_ones_numbers(school: School, new: int) -> None:
    """40: the numbers that the live version remembers are unknown here. 400: here they are of other examples."""
    first = school.learner()
    turn(school, first, 200)
    before = first._shop.versions.load(1).state
    first.lease.release()
    school.replace_buffer()
    school.append(reviews(1000, new))
    with capture_logs() as logs:
        report = school.learner().turn()
    assert report is not None
    assert (report.cycle.parent, report.cycle.plan.replayed) == (1, ())
    warning = next(entry for entry in logs if entry["event"] == "replay_starts_empty")
    assert (warning["log_level"], warning["learned_from"], warning["now"]) == ("warning", "the first", "the second")
    after = school.learners[-1]._shop.versions.load(report.cycle.version).state
    assert before is not None
    assert after is not None
    assert {seq for seq, _ in after.reservoir.entries} | set(after.recent.seqs) == set(report.cycle.plan.fresh)
    assert after.optimizer.step > before.optimizer.step, "moments and step go on"
    school.append(reviews(2000, 40))
    with capture_logs() as logs:
        report = school.learners[-1].turn()
    assert report is not None
    assert set(report.cycle.plan.replayed) <= set(after.recent.seqs)
    assert [entry for entry in logs if entry["event"] == "replay_starts_empty"] == []


@pytest.mark.parametrize("new", [40, 400])
def test_a_buffer_restored_from_a_backup_replays_only_what_it_knows(school: School, new: int) -> None:
    """40: the numbers that the live version remembers are unknown here. 400: here they are of other examples."""
    first = school.learner()
    before = turn(school, first, 80)
    backup = school.back_up_buffer()
    assert turn(school, first, 200).cycle.plan.replayed
    first.lease.release()
    school.replace_buffer(backup)
    school.append(reviews(1000, new))
    learner = school.learner()
    with capture_logs() as logs:
        report = learner.turn()
    assert report is not None
    assert (report.cycle.parent, report.cycle.version, report.cycle.plan.replayed) == (2, 3, ())
    (warning,) = [entry for entry in logs if entry["event"] == "replay_starts_empty"]
    assert (warning["log_level"], warning["learned_from"], warning["restored"]) == ("warning", "the first", True)
    assert counts(school).set_aside == len(before.cycle.plan.fresh), "by a version that live does not build on, here"
    school.append(reviews(2000, 60))
    report = learner.turn()
    assert report is not None
    assert report.cycle.plan.replayed
    assert {example.event_id for example in school.buffer.ledger.examples(FEED, report.cycle.plan.replayed)} <= {
        f"e-{number}" for number in range(1000, 1000 + new)
    }
    school.registry.pause(FEED, **WHO)
    assert school.buffer.ledger.relearn(FEED) == len(before.cycle.plan.fresh)
    school.registry.resume(FEED, **WHO)
    again = learner.turn(at_least=1)
    assert again is not None
    assert set(before.cycle.plan.fresh) <= set(again.cycle.plan.fresh)


# --- interrupted


def interrupted(school: School, where: str, step: str) -> None:
    """A turn whose process ends right before the named call of its registry or buffer."""
    inner = school.registry if where == "registry" else school.buffer
    interposed = Interposed(inner)
    learner = school.learner(**{where: interposed})
    interposed.before(step, crash)
    school.add(80)
    with pytest.raises(Crash):
        learner.turn()
    learner.lease.release()


STEPS = [("buffer", "ledger.take"), ("registry", "put_blob"), ("registry", "publish"), ("buffer", "ledger.ack")]


@pytest.mark.parametrize(("where", "step"), STEPS)
def test_a_turn_cut_short_is_resumed_to_the_same_version(
    school: School, redis_url: str, unique: str, base: Base, tmp_path: Path, where: str, step: str
) -> None:
    interrupted(school, where, step)
    report = school.learner().turn()
    assert report is not None
    assert report.outcome == "promoted"
    assert school.registry.versions(FEED) == [school.live()]
    assert [entry.version for entry in school.registry.audit(FEED)] == [school.live()]
    assert counts(school).learned == len(report.cycle.plan.fresh)
    client = connect(redis_url, f"{unique}-other")
    calm = School(folder=tmp_path / "calm", registry=Registry(client, Keys(f"{unique}-other")), base=base)
    if step == "ledger.take":
        calm.registry.next_version(FEED)  # the number that the crash used up
    turn(calm, calm.learner())
    assert calm.parts(calm.live()) == school.parts(school.live())
    calm.close()
    client.close()


def test_what_was_published_before_the_crash_is_only_acknowledged(school: School) -> None:
    interrupted(school, "buffer", "ledger.ack")
    parts = school.parts(1)
    registry = Interposed(school.registry)
    learner = school.learner(registry=registry)
    assert learner.has_open_cycle()
    registry.before("put_blob", crash)
    report = learner.turn()
    assert report is not None
    assert (report.outcome, report.decision, report.trained_examples) == ("promoted", None, 0)
    assert (school.registry.versions(FEED), school.parts(1)) == ([1], parts)
    assert not learner.has_open_cycle()


def test_a_lost_reply_to_publish_is_found_out(school: School) -> None:
    def no_answer() -> None:
        raise RegistryUnavailable("no answer")

    registry = Interposed(school.registry)
    learner = school.learner(registry=registry)
    registry.after("publish", no_answer)
    school.add(80)
    with pytest.raises(RegistryUnavailable):
        learner.turn()
    report = learner.turn()
    assert report is not None
    assert report.outcome == "promoted"
    assert (school.registry.versions(FEED), school.registry.live(FEED).revision) == ([1], 1)


def test_a_rollback_after_a_crash_sets_the_published_examples_aside(school: School) -> None:
    """The buffer sees the rollback before it learns that the crashed cycle had been published at all."""
    interrupted(school, "buffer", "ledger.ack")
    roll_back(school, 0)
    report = school.learner().turn()
    assert report is not None
    assert report.outcome == "promoted"
    assert counts(school).set_aside == len(report.cycle.plan.fresh)
    assert counts(school).learned == 0


def test_a_live_record_lost_right_after_publishing_is_missed(
    redis_process: RedisProcess, base: Base, tmp_path: Path
) -> None:
    client = connect(redis_process.url)
    school = School(folder=tmp_path / "school", registry=Registry(client, Keys()), base=base)
    registry = Interposed(school.registry)
    registry.after("publish", lambda: client.delete(Keys().live(FEED)) and None)
    school.add(80)
    with pytest.raises(RegistryLost, match="registry_lost"):
        school.learner(registry=registry).turn()
    school.close()
    client.close()


def test_killed_between_acknowledging_and_reconciling_it_is_reconciled_at_the_next_turn(school: School) -> None:
    interrupted(school, "buffer", "ledger.ack")
    roll_back(school, 0)
    buffer = Interposed(school.buffer)
    learner = school.learner(buffer=buffer)
    buffer.after("ledger.ack", crash)
    with pytest.raises(Crash):
        learner.turn()
    learner.lease.release()
    assert school.learner().turn() is None
    assert (counts(school).learned, counts(school).set_aside > 0) == (0, True)


@pytest.mark.parametrize("meddle", [lambda s: roll_back(s, 1), lambda s: s.registry.pause(FEED, **WHO) and None])
def test_an_open_cycle_that_cannot_be_promoted_any_more_is_given_up(
    school: School, meddle: Callable[[School], None]
) -> None:
    learner = school.learner()
    turn(school, learner)
    turn(school, learner)
    learner.lease.release()
    interrupted(school, "registry", "publish")
    meddle(school)
    taken = school.buffer.ledger.open_cycle(FEED)
    assert taken is not None
    assert school.learner().turn() is None
    assert [row.outcome for row in school.buffer.ledger.cycles(FEED)] == ["promoted", "promoted", "abandoned"]
    assert set(taken.plan.fresh) <= set(school.fresh())
    assert counts(school).returned == 0
    assert school.registry.versions(FEED) == [1, 2]


def test_without_the_lease_nothing_is_published(school: School, redis_url: str, unique: str) -> None:
    client = connect(redis_url, unique)
    registry = Interposed(school.registry)
    late = school.learner(registry=registry)
    other = school.registry.lease(FEED, "learner", ttl_s=60)

    def taken_over() -> None:
        client.delete(Keys(unique).lease(FEED, "learner"))
        assert other.acquire()

    registry.before("publish", taken_over)
    school.add(80)
    with pytest.raises(LeaseLost):
        late.turn()
    assert (school.registry.versions(FEED), school.registry.audit(FEED)) == ([], [])
    assert school.buffer.ledger.open_cycle(FEED) is not None
    other.release()
    client.close()
    report = school.learner().turn()
    assert report is not None
    assert report.outcome == "promoted"


def test_a_registry_that_lost_its_data_is_refused(redis_process: RedisProcess, base: Base, tmp_path: Path) -> None:
    client = connect(redis_process.url)
    school = School(folder=tmp_path / "school", registry=Registry(client, Keys()), base=base)
    learner = school.learner()
    turn(school, learner)
    client.delete(Keys().live(FEED))
    school.add(80)
    with pytest.raises(RegistryLost, match="registry_lost"):
        learner.turn()
    assert school.buffer.ledger.open_cycle(FEED) is None
    school.close()
    client.close()


# --- an update is a function


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_stream_gives_the_same_bytes_whatever_interrupts_it(
    dtype: str, redis_url: str, unique: str, base: Base, tmp_path: Path
) -> None:
    hashes = []
    for name in ("calm", "restarted"):
        client = connect(redis_url, f"{unique}-{name}")
        registry, wanted = Registry(client, Keys(f"{unique}-{name}")), section(learner={"dtype": dtype})
        school = School(folder=tmp_path / name, registry=registry, base=base, section=wanted)
        learner = school.learner()
        for _ in range(3):
            turn(school, learner)
            assert (school.manifest(school.live()).dtype, school.manifest(school.live()).format) == (dtype, 3)
            if name == "restarted":
                learner.lease.release()
                learner = school.learner()
        hashes.append([school.parts(version) for version in (1, 2, 3)])
        school.close()
        client.close()
    assert hashes[0] == hashes[1]


def test_a_registry_that_lost_version_numbers_goes_on_above_all_that_the_buffer_knows(
    redis_process: RedisProcess, base: Base, tmp_path: Path
) -> None:
    """Nothing was promoted since, so the revision tells nothing; a number twice would be a cycle id twice."""
    client = connect(redis_process.url)
    school = School(folder=tmp_path / "school", registry=Registry(client, Keys()), base=base)
    registry = Interposed(school.registry)
    learner = school.learner(registry=registry)
    turn(school, learner)
    registry.before("publish", lambda: school.registry.pause(FEED, **WHO) and None)
    assert turn(school, learner).outcome == "rejected"
    school.registry.resume(FEED, **WHO)
    client.delete(Keys().version_counter(FEED))
    with capture_logs() as logs:
        reports = [turn(school, learner) for _ in range(2)]
    assert [(report.cycle.version, report.outcome) for report in reports] == [(3, "promoted"), (4, "promoted")]
    assert len({row.cycle.cycle_id for row in school.buffer.ledger.cycles(FEED)}) == 4
    (warning,) = [entry for entry in logs if entry["event"] == "version_numbers_lost"]
    assert (warning["log_level"], warning["given"], warning["known"]) == ("warning", 0, 2)
    school.close()
    client.close()


def test_another_rank_than_the_live_version_is_refused_with_the_remedy(
    registry: Registry, base: Base, tmp_path: Path
) -> None:
    school = School(folder=tmp_path, registry=registry, base=base)
    turn(school, school.learner())
    school.learners[0].lease.release()
    school.section = section(learner={"rank": 4})
    school.add(80)
    with pytest.raises(ConfigError, match=r"feed.reviews.learner.rank = 4: version 1, .* has 2: set it back"):
        school.learner().turn()
    school.section = section(labels=("negative", "neutral"))
    school.learners[1].lease.release()
    with pytest.raises(ConfigError, match=r"feed.reviews.labels = .* leaves out 'positive', which version 1 has"):
        school.learner().turn()
    school.close()


def test_a_label_that_left_the_config_is_named(registry: Registry, base: Base, tmp_path: Path) -> None:
    school = School(folder=tmp_path, registry=registry, base=base)
    school.add(80)
    school.section = section(labels=("bad", "good"))
    with pytest.raises(ConfigError, match=r"feed.reviews.labels: example \d+ in the buffer has the label"):
        school.learner().turn()
    school.close()


# --- retention


def test_segments_close_with_the_incumbents_accuracy(school: School) -> None:
    learner = school.learner()
    school.add(40)
    learner.keep_house()
    rows = school.buffer.exams.matrix(FEED)
    assert [cell[0] for cell in rows[0] if cell] == [0], "version 0 answers nothing"
    turn(school, learner, 40)
    turn(school, learner, 40)
    rows = school.buffer.exams.matrix(FEED)
    assert len(rows) == 3
    assert rows[0][1] is None
    fresh_eyes = LoraModel(school.base, task_named(school.section.task), LABELS, school.section.learner)
    fresh_eyes.load(learner._shop.versions.load(1).weights)
    oracle = []
    for segment in school.buffer.exams.segments(FEED):
        texts = [example.text for example in school.buffer.ledger.examples(FEED, segment.holdouts)]
        answers = [LABELS[int(fresh_eyes.predict([text]).argmax())] for text in texts]
        truth = [next(name for name in LABELS if text.split()[0] in WORDS[name]) for text in texts]
        oracle.append(sum(a == t for a, t in zip(answers, truth, strict=True)))
    assert [cell[0] for cell in rows[2] if cell] == oracle
    assert [cell[1] for cell in rows[2] if cell] == [len(s.holdouts) for s in school.buffer.exams.segments(FEED)]


def test_the_last_segment_closes_early_only_with_enough_holdouts(school: School) -> None:
    learner = school.learner()
    school.append(reviews(0, 30))
    learner.close_segments(minimum_open=100)
    assert school.buffer.exams.matrix(FEED) == []
    learner.close_segments(minimum_open=5)
    assert len(school.buffer.exams.matrix(FEED)) == 1
