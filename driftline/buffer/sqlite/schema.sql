-- The buffer's tables. Times are microseconds since the epoch (UTC); feeds are numbered to keep rows and indices narrow.

CREATE TABLE settings (
  name  TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE feeds (
  id            INTEGER PRIMARY KEY,
  name          TEXT NOT NULL UNIQUE,
  seen_revision INTEGER NOT NULL DEFAULT 0,
  outside       TEXT NOT NULL DEFAULT '[]',   -- adopted versions outside the live one's lineage, at the last reconcile
  labels        TEXT NOT NULL DEFAULT '[]'    -- JSON: the classes its examples are of; [] of a feed that never said
) STRICT;

-- Where a feed reads each of its topics on from, and which topic that was. A feed under a new name starts anew; it needs
-- a new predictions topic as well, because answers name no feed.
CREATE TABLE positions (
  feed        INTEGER NOT NULL,
  topic       TEXT NOT NULL,
  "partition" INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  PRIMARY KEY (feed, topic, "partition")
) STRICT, WITHOUT ROWID;

CREATE TABLE topics (
  feed     INTEGER NOT NULL,
  topic    TEXT NOT NULL,
  identity TEXT NOT NULL,
  PRIMARY KEY (feed, topic)
) STRICT, WITHOUT ROWID;

-- What `counts` reports, changed in the same transaction as what it counts.
CREATE TABLE counters (
  feed  INTEGER NOT NULL,
  name  TEXT NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (feed, name)
) STRICT, WITHOUT ROWID;

-- One row per event id: first an event that waits for its label (seq NULL), then an example.
CREATE TABLE events (
  arrival          INTEGER PRIMARY KEY,       -- topic order of arrival
  feed             INTEGER NOT NULL,
  event_id         TEXT NOT NULL,
  state            INTEGER NOT NULL,          -- states.py
  seq              INTEGER,
  attempts         INTEGER NOT NULL DEFAULT 0,
  holdout          INTEGER,                   -- keyed hash of a held-out text, else NULL
  received_at      INTEGER NOT NULL,
  joined_at        INTEGER,
  occurred_at      INTEGER NOT NULL,
  labelled_at      INTEGER,
  label            TEXT,
  answer_version   INTEGER,                   -- NULL: no prediction came
  answer_label     TEXT,
  answer_partition INTEGER,
  answer_offset    INTEGER,
  source           TEXT,
  text             TEXT NOT NULL,
  label_trusted    INTEGER NOT NULL DEFAULT 0,
  relearn_after    INTEGER                    -- its label was corrected when this was the newest version: only later ones
                                              -- learned the right one
) STRICT;
CREATE UNIQUE INDEX events_by_id ON events (feed, event_id);
CREATE UNIQUE INDEX events_by_seq ON events (seq) WHERE seq IS NOT NULL;
CREATE INDEX events_by_state ON events (feed, state, seq);
CREATE INDEX events_pending ON events (feed, received_at) WHERE state = 0;
CREATE INDEX events_awaiting ON events (feed, joined_at) WHERE state = 1;
CREATE INDEX events_joined ON events (feed, arrival) WHERE seq IS NOT NULL;       -- examples as their events came
CREATE INDEX events_returned ON events (feed) WHERE state = 2 AND attempts > 0;   -- fresh, given back by a rejection

-- Labels and predictions that came before their event.
CREATE TABLE labels (
  id          INTEGER PRIMARY KEY,
  feed        INTEGER NOT NULL,
  event_id    TEXT NOT NULL,
  label       TEXT NOT NULL,
  labelled_at INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  topic       TEXT NOT NULL,
  "partition" INTEGER NOT NULL,
  "offset"    INTEGER NOT NULL,
  value       BLOB NOT NULL,
  labeller    TEXT,
  trusted     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX labels_by_id ON labels (feed, event_id);
CREATE INDEX labels_by_age ON labels (feed, received_at);

-- Labels that replaced another one of the same example.
CREATE TABLE corrections (
  id            INTEGER PRIMARY KEY,
  feed          INTEGER NOT NULL,
  seq           INTEGER NOT NULL,
  was           TEXT NOT NULL,
  becomes       TEXT NOT NULL,
  labeller      TEXT,
  corrected_at  INTEGER NOT NULL,
  after_version INTEGER NOT NULL
) STRICT;
CREATE INDEX corrections_by_feed ON corrections (feed, id);
CREATE INDEX corrections_by_seq ON corrections (seq);

CREATE TABLE predictions (
  id          INTEGER PRIMARY KEY,
  feed        INTEGER NOT NULL,
  event_id    TEXT NOT NULL,
  label       TEXT,
  version     INTEGER NOT NULL,
  "partition" INTEGER,
  "offset"    INTEGER,
  received_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX predictions_by_id ON predictions (feed, event_id);
CREATE INDEX predictions_by_age ON predictions (feed, received_at);

-- Dead letters: the outbox to the dead-letter topic, and what `dead-letters retry` works on. One row per feed and position.
CREATE TABLE letters (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  feed        INTEGER NOT NULL,
  kind        TEXT NOT NULL,                  -- event, label or prediction
  reason      TEXT NOT NULL,
  detail      TEXT NOT NULL,
  topic       TEXT NOT NULL,
  "partition" INTEGER NOT NULL,
  "offset"    INTEGER NOT NULL,
  state       TEXT NOT NULL,                  -- to_send, sent, retry, resolved
  sent_reason TEXT,                           -- the reason it was last sent with
  at          INTEGER NOT NULL,
  value       BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX letters_by_position ON letters (feed, topic, "partition", "offset");
CREATE INDEX letters_by_state ON letters (state, id);
CREATE INDEX letters_by_feed ON letters (feed, id);

CREATE TABLE cycles (
  cycle_id TEXT PRIMARY KEY,
  feed     INTEGER NOT NULL,
  parent   INTEGER NOT NULL,
  version  INTEGER NOT NULL,
  seed     INTEGER NOT NULL,
  taken_at INTEGER NOT NULL,
  outcome  TEXT,                              -- promoted, rejected, abandoned; NULL while it is open
  adopted  INTEGER NOT NULL DEFAULT 0,        -- its version has been live: its examples count as learned
  newest   INTEGER NOT NULL,                  -- the greatest number it trains on, fresh or replayed
  plan     TEXT NOT NULL                      -- JSON: fresh, replayed, retired; last, so that it is rarely read
) STRICT;
CREATE INDEX cycles_by_feed ON cycles (feed, taken_at);
CREATE INDEX cycles_by_version ON cycles (feed, version);
CREATE UNIQUE INDEX cycles_open ON cycles (feed) WHERE outcome IS NULL;

-- Stretches of a feed's examples, and the matrix row measured when each was closed.
CREATE TABLE segments (
  id        INTEGER PRIMARY KEY,
  feed      INTEGER NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq  INTEGER NOT NULL,
  examples  INTEGER NOT NULL,
  holdouts  INTEGER NOT NULL,                 -- seen; those kept are in kept_holdouts
  merged    INTEGER NOT NULL DEFAULT 1,       -- how many segments were merged into it, itself included
  closed    INTEGER NOT NULL DEFAULT 0,
  version   INTEGER,
  closed_at INTEGER,
  measured  TEXT                              -- JSON: [correct, n] or null per column
) STRICT;
CREATE INDEX segments_by_feed ON segments (feed, id);

CREATE TABLE kept_holdouts (
  segment INTEGER NOT NULL,
  hash    INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  PRIMARY KEY (segment, hash, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE cached_predictions (
  feed    INTEGER NOT NULL,
  version INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  label   TEXT,
  PRIMARY KEY (feed, version, seq)
) STRICT, WITHOUT ROWID;
