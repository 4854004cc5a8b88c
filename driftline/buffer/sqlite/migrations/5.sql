-- 4 → 5: corrected labels, trusted labellers, and the classes that a feed's examples are of.
ALTER TABLE feeds ADD COLUMN labels TEXT NOT NULL DEFAULT '[]';
ALTER TABLE events ADD COLUMN label_trusted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events ADD COLUMN relearn_after INTEGER;
ALTER TABLE labels ADD COLUMN labeller TEXT;
ALTER TABLE labels ADD COLUMN trusted INTEGER NOT NULL DEFAULT 0;
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
CREATE INDEX cycles_by_version ON cycles (feed, version);
