-- The shop's database as the connector expects it. Run once, inside the database goods_db, at the first start of the
-- source database: mounted into /docker-entrypoint-initdb.d by compose, executed by the native stack.
CREATE SCHEMA IF NOT EXISTS orders;

CREATE TABLE IF NOT EXISTS orders.transactions (
    id         uuid        PRIMARY KEY,
    good_id    bigint      NOT NULL,
    operation  text        NOT NULL,
    pcs        bigint      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
