-- The buffer's tables. Times are microseconds since the epoch (UTC); feeds are numbered to keep rows and indices narrow.

CREATE TABLE settings (
  name  TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE feeds (
  id            INTEGER PRIMARY KEY,
  name          TEXT NOT NULL UNIQUE,
  next_seq      INTEGER NOT NULL DEFAULT 1,   -- the number of its next example
  seen_revision INTEGER NOT NULL DEFAULT 0,
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

-- What is counted, changed in the same transaction as what it counts. By label and by reason: `counters.py`.
CREATE TABLE counters (
  feed  INTEGER NOT NULL,
  name  TEXT NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (feed, name)
) STRICT, WITHOUT ROWID;

-- One row per event id, written when it comes, when its answer comes and when its label comes: texts are never rewritten
-- by what the learner does.
CREATE TABLE events (
  arrival          INTEGER PRIMARY KEY,       -- topic order of arrival
  feed             INTEGER NOT NULL,
  event_id         TEXT NOT NULL,
  seq              INTEGER,                   -- its example; NULL while it waits for its label
  holdout          INTEGER,                   -- keyed hash of a held-out text, else NULL
  received_at      INTEGER NOT NULL,
  occurred_at      INTEGER NOT NULL,
  labelled_at      INTEGER,
  label_trusted    INTEGER NOT NULL DEFAULT 0,
  label            TEXT,
  answer_version   INTEGER,                   -- NULL: no prediction came
  answer_label     TEXT,
  answer_partition INTEGER,
  answer_offset    INTEGER,
  source           TEXT,
  text             TEXT NOT NULL              -- last: what stands behind a long one is slow to read
) STRICT;
CREATE UNIQUE INDEX events_by_id ON events (feed, event_id);
CREATE INDEX events_pending ON events (feed, received_at) WHERE seq IS NULL;
CREATE INDEX events_joined ON events (feed, arrival) WHERE seq IS NOT NULL;       -- examples as their events came

-- What becomes of each example; numbers count per feed.
CREATE TABLE examples (
  feed          INTEGER NOT NULL,
  seq           INTEGER NOT NULL,
  arrival       INTEGER NOT NULL,             -- its event
  joined_at     INTEGER NOT NULL,
  state         INTEGER NOT NULL,             -- states.py
  attempts      INTEGER NOT NULL DEFAULT 0,
  relearn_after INTEGER,                      -- its label was corrected when this was the newest version: only later ones
                                              -- learned the right one
  PRIMARY KEY (feed, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX examples_by_state ON examples (feed, state, seq);
CREATE INDEX examples_awaiting ON examples (feed, joined_at) WHERE state = 1;
CREATE INDEX examples_returned ON examples (feed) WHERE state = 2 AND attempts > 0;   -- fresh, given back by a rejection

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

CREATE TABLE predictions (
  id          INTEGER PRIMARY KEY,
  feed        INTEGER NOT NULL,
  event_id    TEXT NOT NULL,
  label       TEXT,
  version     INTEGER NOT NULL,
  "partition" INTEGER,
  "offset"    INTEGER,
  received_at INTEGER NOT NULL,
  feature     BLOB                            -- NULL: none was served with it, or the feed has no fast clock
) STRICT;
CREATE UNIQUE INDEX predictions_by_id ON predictions (feed, event_id);
CREATE INDEX predictions_by_age ON predictions (feed, received_at);

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
CREATE INDEX corrections_by_seq ON corrections (feed, seq);

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
  done_at     INTEGER,                        -- when it was sent or resolved; NULL while there is something to do with it
  value       BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX letters_by_position ON letters (feed, topic, "partition", "offset");
CREATE INDEX letters_by_state ON letters (feed, state, id);
CREATE INDEX letters_by_feed ON letters (feed, id);
CREATE INDEX letters_done ON letters (feed, done_at) WHERE done_at IS NOT NULL;

-- Cycles, numbered in the order of their versions within a feed.
CREATE TABLE cycles (
  id       INTEGER PRIMARY KEY,
  cycle_id TEXT NOT NULL UNIQUE,
  feed     INTEGER NOT NULL,
  parent   INTEGER NOT NULL,
  version  INTEGER NOT NULL,
  seed     INTEGER NOT NULL,
  taken_at INTEGER NOT NULL,
  outcome  TEXT,                              -- promoted, rejected, unjudged, abandoned; NULL while it is open
  standing INTEGER                            -- standing.py; NULL: its version was never live
) STRICT;
CREATE UNIQUE INDEX cycles_by_version ON cycles (feed, version);
CREATE INDEX cycles_by_time ON cycles (feed, taken_at);
CREATE INDEX cycles_by_standing ON cycles (feed, standing, version) WHERE standing IS NOT NULL;
CREATE UNIQUE INDEX cycles_open ON cycles (feed) WHERE outcome IS NULL;

-- The plan of each cycle, in its order.
CREATE TABLE cycle_examples (
  cycle INTEGER NOT NULL,
  place INTEGER NOT NULL,
  role  INTEGER NOT NULL,                     -- 0 fresh, 1 replayed, 2 retired
  feed  INTEGER NOT NULL,
  seq   INTEGER NOT NULL,
  PRIMARY KEY (cycle, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX cycle_examples_by_seq ON cycle_examples (feed, seq, role, cycle);

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

-- The fast clock. What it has not learned yet: a row for each label of a feed that has one.
CREATE TABLE due (
  feed INTEGER NOT NULL,
  seq  INTEGER NOT NULL,
  PRIMARY KEY (feed, seq)
) STRICT, WITHOUT ROWID;

-- Features as they were served, until the fast clock has learned their example.
CREATE TABLE features (
  arrival INTEGER PRIMARY KEY,                -- its event
  feed    INTEGER NOT NULL,
  feature BLOB NOT NULL
) STRICT;
CREATE INDEX features_by_feed ON features (feed, arrival);

-- The newest pulse, sealed: it may not have been published yet.
CREATE TABLE pulses (
  feed   INTEGER PRIMARY KEY,
  number INTEGER NOT NULL,
  pulse  BLOB NOT NULL
) STRICT;

-- What each pulse since the kept state learned, as it was then: labels and answers may be corrected since.
CREATE TABLE pulse_examples (
  feed    INTEGER NOT NULL,
  number  INTEGER NOT NULL,
  place   INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  label   TEXT NOT NULL,
  version INTEGER,
  feature BLOB,
  PRIMARY KEY (feed, number, place)
) STRICT, WITHOUT ROWID;

-- The whole fast state to go on from.
CREATE TABLE fast_states (
  feed   INTEGER PRIMARY KEY,
  epoch  TEXT NOT NULL,
  number INTEGER NOT NULL,
  pulse  BLOB NOT NULL,
  state  BLOB NOT NULL
) STRICT;

-- Examples that the fast clock learned by this pulse before an answer came; `knew`: the one that came since was of this
-- pulse or a later one, so it is not scored.
CREATE TABLE learned_unanswered (
  feed   INTEGER NOT NULL,
  seq    INTEGER NOT NULL,
  number INTEGER NOT NULL,
  knew   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (feed, seq)
) STRICT, WITHOUT ROWID;
