-- 6 → 7: what the fast clock takes and leaves behind. Its feeds begin with the labels that come from now on.

ALTER TABLE predictions ADD COLUMN feature BLOB;

CREATE TABLE due (
  feed INTEGER NOT NULL,
  seq  INTEGER NOT NULL,
  PRIMARY KEY (feed, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE features (
  arrival INTEGER PRIMARY KEY,
  feed    INTEGER NOT NULL,
  feature BLOB NOT NULL
) STRICT;
CREATE INDEX features_by_feed ON features (feed, arrival);

CREATE TABLE pulses (
  feed   INTEGER PRIMARY KEY,
  number INTEGER NOT NULL,
  pulse  BLOB NOT NULL
) STRICT;

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

CREATE TABLE fast_states (
  feed   INTEGER PRIMARY KEY,
  epoch  TEXT NOT NULL,
  number INTEGER NOT NULL,
  pulse  BLOB NOT NULL,
  state  BLOB NOT NULL
) STRICT;

CREATE TABLE learned_unanswered (
  feed   INTEGER NOT NULL,
  seq    INTEGER NOT NULL,
  number INTEGER NOT NULL,
  knew   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (feed, seq)
) STRICT, WITHOUT ROWID;
