"""Alembic's entry for this database: one line of history, in SQL."""

from tandem.infra.migrations import run

run()
