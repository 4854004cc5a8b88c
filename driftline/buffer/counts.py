"""How many there are of what, in one feed: the sum that no report has to scan a table for.

    events = examples + unlabelled + pending + dead letters + duplicates        (hold-outs are among the examples)

holds after every transaction, for event records alone; labels and predictions are counted apart.
"""

from dataclasses import dataclass, field

REASON, LABEL, WITHDRAWN_LABEL = "reason:", "label:", "withdrawn:"
"""Further counters: unresolved letters by kind and reason (`reason:label:no_event`), examples by label, and withdrawn
ones by theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedCounts:
    """How many there are of what, in one feed. Everything is a number of records or rows.

    `event_records` = examples + unlabelled + pending + dead_letters + duplicates. `holdouts` are among the examples,
    and examples = holdouts + awaiting_prediction + fresh + taken + learned + retired + remembered + set_aside +
    withdrawn. `corrected` counts labels that replaced another one, also one that still waited for its event;
    `label_duplicates` those that changed nothing: the same again, or another one where `on_conflict` keeps the first.
    `times_fell_back` counts records whose own time could not be read. `returned` are those of the fresh ones that a
    rejected cycle gave back. `unlabelled` includes the `overflowed` ones, which the full waiting room let go early.
    `by_reason` counts dead letters of all kinds that are not resolved; `letters_let_go` of them were sent and are kept
    no longer. `letter_bytes`: of all letters that are kept. `due`: examples that the fast clock
    has not learned yet; `features`: those kept for it, also of events that wait for their label.
    """

    event_records: int = 0
    examples: int = 0
    holdouts: int = 0
    unlabelled: int = 0
    overflowed: int = 0
    pending: int = 0
    dead_letters: int = 0
    label_dead_letters: int = 0
    prediction_dead_letters: int = 0
    duplicates: int = 0
    fresh: int = 0
    returned: int = 0
    taken: int = 0
    learned: int = 0
    retired: int = 0
    remembered: int = 0
    set_aside: int = 0
    withdrawn: int = 0
    awaiting_prediction: int = 0
    labels_waiting: int = 0
    predictions_waiting: int = 0
    predictions_expired: int = 0
    label_duplicates: int = 0
    prediction_duplicates: int = 0
    segments_merged: int = 0
    corrected: int = 0
    times_fell_back: int = 0
    letters_let_go: int = 0
    letter_bytes: int = 0
    due: int = 0
    features: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
