"""Where topics end now, in next offsets."""

from collections.abc import Iterable
from contextlib import closing

from driftline.topics import Partition, Topics

__all__ = ["ends"]


def ends(topics: Topics, names: Iterable[str]) -> dict[Partition, int]:
    """The next offset of every partition of these topics; those that do not exist have none. TopicUnavailable."""
    start = {Partition(topic=name, partition=number): 0 for name in names for number in topics.partitions(name)}
    if not start:
        return {}
    with closing(topics.open(start)) as reader:  # nothing is read: how far the start lies back is where the end is
        return {place: offset for place, offset in reader.lag().items() if offset}
