-- What readers see: how many pieces of each good remain. Column names good_id and cnt are what readers use.
-- The schema itself exists by now: the record of migrations lives in it, too.
CREATE TABLE remains.remains (
    good_id    bigint      PRIMARY KEY,
    cnt        bigint      NOT NULL,
    epoch      bigint      NOT NULL,
    version    bigint      NOT NULL,
    updated_at timestamptz NOT NULL
);

COMMENT ON TABLE remains.remains IS 'Pieces that remain of each good; written only by the sink';
COMMENT ON COLUMN remains.remains.epoch IS 'When the output this row comes from was first written, ms since 1970';
COMMENT ON COLUMN remains.remains.version IS 'Version of the good within the epoch; (epoch, version) only ever grows';

-- How far each partition was applied, in the same transaction as what was applied.
CREATE TABLE remains.progress (
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    epoch           bigint,
    next_offset     bigint      NOT NULL,
    completed_epoch bigint,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);

COMMENT ON TABLE remains.progress IS 'Next offset to apply per partition; part of every backup, or a restored target does not catch up';
COMMENT ON COLUMN remains.progress.epoch IS 'Newest epoch read in the partition; null before the first record';
COMMENT ON COLUMN remains.progress.completed_epoch IS 'Rows of older epochs were removed and are not written again';

-- Goods whose remains do not fit cnt: shown here until a later version fits again.
CREATE TABLE remains.held_goods (
    good_id bigint      PRIMARY KEY,
    remains numeric(39) NOT NULL,
    epoch   bigint      NOT NULL,
    version bigint      NOT NULL,
    since   timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE remains.held_goods IS 'Goods whose row in remains.remains is older than shown here, because the sum does not fit a bigint';
