-- Filled with --transaction-log only: one row per live source transaction, for people who audit by SQL.
CREATE TABLE remains.transaction_log (
    id         uuid        PRIMARY KEY,
    good_id    bigint      NOT NULL,
    operation  text        NOT NULL,
    pcs        bigint      NOT NULL,
    partition  integer     NOT NULL,
    changed_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE INDEX transaction_log_good_id ON remains.transaction_log (good_id);

COMMENT ON TABLE remains.transaction_log IS 'Live transactions as the processor knows them; follows remains.remains within moments, not in the same commit';
COMMENT ON COLUMN remains.transaction_log.changed_at IS 'When the source reported the change that made the row what it is';
