-- The sink's role, with everything it needs and nothing else. Run once by a superuser inside the target database; may be
-- run again. The password is set apart: ALTER ROLE sink PASSWORD '…' (or \password sink in psql).
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sink') THEN
        CREATE ROLE sink LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
    END IF;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO sink', current_database());
END $$;
-- It makes and migrates its own tables: this schema is its own, and no other.
CREATE SCHEMA IF NOT EXISTS remains AUTHORIZATION sink;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
