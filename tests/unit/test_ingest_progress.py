"""When a feed's topics count as read up to date."""

from collections.abc import Mapping

from driftline.errors import TopicUnavailable
from driftline.topics import Partition
from stream.progress import TRUSTED, Progress
from tests.fixtures.buffers import at

P, Q = Partition(topic="events", partition=0), Partition(topic="labels", partition=0)


class FakeReader:
    """A named fake: only the lag matters here."""

    def __init__(self, lag: Mapping[Partition, int] | None) -> None:
        self.behind = lag
        self.asked = 0

    def lag(self) -> dict[Partition, int]:
        self.asked += 1
        if self.behind is None:
            raise TopicUnavailable("the broker does not answer")
        return dict(self.behind)


def test_current_once_the_end_at_the_start_is_reached_though_the_topic_grows() -> None:
    progress, reader = Progress(), FakeReader({P: 10, Q: 0})
    assert not progress.is_current(reader, {P: 100}, at(0))
    reader.behind = {P: 7, Q: 0}  # read 5, 2 more came
    assert not progress.is_current(reader, {P: 105}, at(0))
    reader.behind = {P: 900, Q: 3}
    assert not progress.is_current(reader, {P: 109}, at(0))
    assert progress.is_current(reader, {P: 110}, at(0)), "what came later does not count"
    asked = reader.asked
    assert progress.is_current(reader, {P: 110}, at(0))
    assert reader.asked == asked, "no more questions"


def test_markers_at_the_end_do_not_hold_it_up() -> None:
    """Kafka's transaction markers are no records: the position stays before them, the lag is 0."""
    progress, reader = Progress(), FakeReader({P: 5})
    assert not progress.is_current(reader, {P: 100}, at(0))
    reader.behind = {P: 0}
    assert progress.is_current(reader, {P: 104}, at(0))


def test_a_restart_asks_anew() -> None:
    progress, reader = Progress(), FakeReader({P: 0})
    assert progress.is_current(reader, {P: 100}, at(0))
    progress.restart()
    reader.behind = {P: 50}
    assert not progress.is_current(reader, {P: 100}, at(0))


def test_unknown_is_not_current() -> None:
    assert not Progress().is_current(FakeReader(None), {}, at(0))


def test_an_outage_is_noticed_and_what_came_during_it_is_read_first() -> None:
    progress, reader = Progress(), FakeReader({P: 0})
    trusted_s = TRUSTED.total_seconds()
    assert progress.is_current(reader, {P: 100}, at(0))
    reader.behind = None  # cut off: from now on poll returns []
    assert progress.is_current(reader, {P: 100}, at(trusted_s - 1)), "for a moment the last answer counts"
    assert not progress.is_current(reader, {P: 100}, at(trusted_s))
    reader.behind = {P: 50}
    assert not progress.is_current(reader, {P: 100}, at(trusted_s + 1))
    reader.behind = {P: 7}
    assert progress.is_current(reader, {P: 150}, at(trusted_s + 2))


def test_the_end_from_before_an_outage_does_not_count() -> None:
    progress, reader = Progress(), FakeReader({P: 10})
    assert not progress.is_current(reader, {P: 100}, at(0))
    reader.behind = None
    assert not progress.is_current(reader, {P: 110}, at(1))
    reader.behind = {P: 40}
    assert not progress.is_current(reader, {P: 110}, at(2))
    assert not progress.is_current(reader, {P: 149}, at(3))
    assert progress.is_current(reader, {P: 150}, at(4))


def test_a_process_that_was_stopped_reads_up_again() -> None:
    progress, reader = Progress(), FakeReader({P: 0})
    assert progress.is_current(reader, {P: 100}, at(0))
    reader.behind = {P: 50}
    assert not progress.is_current(reader, {P: 100}, at(3600))


def test_a_clock_that_was_set_back_is_no_proof() -> None:
    progress, reader = Progress(), FakeReader({P: 0})
    assert progress.is_current(reader, {P: 100}, at(3600))
    reader.behind = {P: 50}
    assert not progress.is_current(reader, {P: 100}, at(0))
