-- 5 → 6: plans as rows, example numbers that count per feed, states apart from texts, letters that are let go.
-- Examples keep the numbers they have, because trainer states name them; each feed goes on above its own greatest.

-- Feeds, cycles and their plans. Cycles are numbered as their versions rise within a feed. A version may stand there
-- twice, from when Redis had lost its counter and gave the number again: the open cycle keeps it, else the one that was
-- live, else the newest, since that is the one whose version the registry can hold; the others keep their plans and what
-- was learned from them under a number that no version has.
CREATE TABLE numbered_cycles AS
  SELECT ROW_NUMBER() OVER (ORDER BY feed, version, taken_at, cycle_id) AS id, *,
    ROW_NUMBER() OVER (PARTITION BY feed, version ORDER BY outcome IS NULL DESC, outcome IS 'abandoned', adopted DESC, taken_at DESC, cycle_id)
      AS rank
  FROM cycles;
CREATE TABLE outside AS SELECT feeds.id AS feed, value AS version FROM feeds, json_each(feeds.outside);

CREATE TABLE cycle_examples (
  cycle INTEGER NOT NULL,
  place INTEGER NOT NULL,
  role  INTEGER NOT NULL,
  feed  INTEGER NOT NULL,
  seq   INTEGER NOT NULL,
  PRIMARY KEY (cycle, place)
) STRICT, WITHOUT ROWID;
INSERT INTO cycle_examples
  SELECT numbered_cycles.id, key, 0, feed, value FROM numbered_cycles, json_each(plan, '$.fresh');
INSERT INTO cycle_examples
  SELECT numbered_cycles.id, json_array_length(plan, '$.fresh') + key, 1, feed, value FROM numbered_cycles, json_each(plan, '$.replayed');
INSERT INTO cycle_examples
  SELECT numbered_cycles.id, json_array_length(plan, '$.fresh') + json_array_length(plan, '$.replayed') + key, 2, feed, value
  FROM numbered_cycles, json_each(plan, '$.retired');
CREATE INDEX cycle_examples_by_seq ON cycle_examples (feed, seq, role, cycle);

DROP TABLE cycles;
CREATE TABLE cycles (
  id       INTEGER PRIMARY KEY,
  cycle_id TEXT NOT NULL UNIQUE,
  feed     INTEGER NOT NULL,
  parent   INTEGER NOT NULL,
  version  INTEGER NOT NULL,
  seed     INTEGER NOT NULL,
  taken_at INTEGER NOT NULL,
  outcome  TEXT,
  standing INTEGER
) STRICT;
INSERT INTO cycles
  SELECT id, cycle_id, feed, parent, CASE rank WHEN 1 THEN version ELSE -id END, seed, taken_at, outcome,
    CASE WHEN NOT adopted THEN NULL WHEN (feed, version) IN (SELECT feed, version FROM outside) THEN 2 ELSE 0 END
  FROM numbered_cycles;
CREATE UNIQUE INDEX cycles_by_version ON cycles (feed, version);
CREATE INDEX cycles_by_time ON cycles (feed, taken_at);
CREATE INDEX cycles_by_standing ON cycles (feed, standing, version) WHERE standing IS NOT NULL;
CREATE UNIQUE INDEX cycles_open ON cycles (feed) WHERE outcome IS NULL;
DROP TABLE numbered_cycles;
DROP TABLE outside;

CREATE TABLE feeds_6 (
  id            INTEGER PRIMARY KEY,
  name          TEXT NOT NULL UNIQUE,
  next_seq      INTEGER NOT NULL DEFAULT 1,
  seen_revision INTEGER NOT NULL DEFAULT 0,
  labels        TEXT NOT NULL DEFAULT '[]'
) STRICT;
INSERT INTO feeds_6
  SELECT id, name, COALESCE((SELECT MAX(seq) FROM events WHERE feed = feeds.id AND seq IS NOT NULL), 0) + 1,
    seen_revision, labels
  FROM feeds;
DROP TABLE feeds;
ALTER TABLE feeds_6 RENAME TO feeds;
DELETE FROM settings WHERE name = 'next_seq';

-- Examples, and events without what changes often.
CREATE TABLE examples (
  feed          INTEGER NOT NULL,
  seq           INTEGER NOT NULL,
  arrival       INTEGER NOT NULL,
  joined_at     INTEGER NOT NULL,
  state         INTEGER NOT NULL,
  attempts      INTEGER NOT NULL DEFAULT 0,
  relearn_after INTEGER,
  PRIMARY KEY (feed, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO examples
  SELECT feed, seq, arrival, joined_at, state, attempts, relearn_after FROM events WHERE seq IS NOT NULL ORDER BY feed, seq;
CREATE INDEX examples_by_state ON examples (feed, state, seq);
CREATE INDEX examples_awaiting ON examples (feed, joined_at) WHERE state = 1;
CREATE INDEX examples_returned ON examples (feed) WHERE state = 2 AND attempts > 0;

CREATE TABLE events_6 (
  arrival          INTEGER PRIMARY KEY,
  feed             INTEGER NOT NULL,
  event_id         TEXT NOT NULL,
  seq              INTEGER,
  holdout          INTEGER,
  received_at      INTEGER NOT NULL,
  occurred_at      INTEGER NOT NULL,
  labelled_at      INTEGER,
  label_trusted    INTEGER NOT NULL DEFAULT 0,
  label            TEXT,
  answer_version   INTEGER,
  answer_label     TEXT,
  answer_partition INTEGER,
  answer_offset    INTEGER,
  source           TEXT,
  text             TEXT NOT NULL
) STRICT;
INSERT INTO events_6
  SELECT arrival, feed, event_id, seq, holdout, received_at, occurred_at, labelled_at, label_trusted, label,
    answer_version, answer_label, answer_partition, answer_offset, source, text
  FROM events ORDER BY arrival;
DROP TABLE events;
ALTER TABLE events_6 RENAME TO events;
CREATE UNIQUE INDEX events_by_id ON events (feed, event_id);
CREATE INDEX events_pending ON events (feed, received_at) WHERE seq IS NULL;
CREATE INDEX events_joined ON events (feed, arrival) WHERE seq IS NOT NULL;

DROP INDEX corrections_by_seq;
CREATE INDEX corrections_by_seq ON corrections (feed, seq);

-- Letters: what was sent or resolved waits from now on to be let go.
CREATE TABLE letters_6 (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  feed        INTEGER NOT NULL,
  kind        TEXT NOT NULL,
  reason      TEXT NOT NULL,
  detail      TEXT NOT NULL,
  topic       TEXT NOT NULL,
  "partition" INTEGER NOT NULL,
  "offset"    INTEGER NOT NULL,
  state       TEXT NOT NULL,
  sent_reason TEXT,
  at          INTEGER NOT NULL,
  done_at     INTEGER,
  value       BLOB NOT NULL
) STRICT;
INSERT INTO letters_6
  SELECT id, feed, kind, reason, detail, topic, "partition", "offset", state, sent_reason, at,
    CASE WHEN state IN ('sent', 'resolved') THEN CAST(strftime('%s', 'now') AS INTEGER) * 1000000 END, value
  FROM letters ORDER BY id;
DROP TABLE letters;
ALTER TABLE letters_6 RENAME TO letters;
CREATE UNIQUE INDEX letters_by_position ON letters (feed, topic, "partition", "offset");
CREATE INDEX letters_by_state ON letters (feed, state, id);
CREATE INDEX letters_by_feed ON letters (feed, id);
CREATE INDEX letters_done ON letters (feed, done_at) WHERE done_at IS NOT NULL;

-- Counters by kind and reason, by label, and of bytes.
DELETE FROM counters WHERE name GLOB 'reason:*';
INSERT INTO counters
  SELECT feed, 'reason:' || kind || ':' || reason, COUNT(*) FROM letters WHERE state <> 'resolved'
  GROUP BY feed, kind, reason;
INSERT INTO counters
  SELECT feed, 'letter_bytes', SUM(LENGTH(value)) FROM letters GROUP BY feed;
INSERT INTO counters
  SELECT events.feed, CASE state WHEN 9 THEN 'withdrawn:' ELSE 'label:' END || label, COUNT(*)
  FROM events JOIN examples ON examples.feed = events.feed AND examples.seq = events.seq
  GROUP BY 1, 2;
