#!/bin/bash
# Sets the passwords of roles at the first start of a database in compose, behind the roles' script: ROLE_PASSWORDS is a list
# of ROLE=PASSWORD or ROLE=@FILE, separated by spaces. Sourced or executed by the image's entrypoint.
for pair in ${ROLE_PASSWORDS:-}; do
  role=${pair%%=*}
  password=${pair#*=}
  case "$password" in @*) password=$(cat "${password#@}") ;; esac
  # The password goes by a variable of psql's: neither on a command line nor unquoted into the statement.
  ROLE_PASSWORD=$password psql -v ON_ERROR_STOP=1 -X -U "${POSTGRES_USER:-postgres}" -d "${POSTGRES_DB:-postgres}" -v "role=$role" <<'SQL'
\getenv password ROLE_PASSWORD
ALTER ROLE :"role" PASSWORD :'password';
SQL
done
