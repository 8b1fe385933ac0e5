-- Debezium's role, with everything it needs and nothing else. Run once by a superuser inside the source database, after the
-- table was made; may be run again. The password is set apart: ALTER ROLE debezium PASSWORD '…'.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'debezium') THEN
        -- REPLICATION: its replication slot. On a managed server that is another right (rds_replication and the like).
        CREATE ROLE debezium LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO debezium', current_database());
    -- The connector uses a publication of this name, and could not make one without owning the table.
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'dbz_publication') THEN
        CREATE PUBLICATION dbz_publication FOR TABLE orders.transactions;
    END IF;
END $$;
GRANT USAGE ON SCHEMA orders TO debezium;
GRANT SELECT ON orders.transactions TO debezium;
