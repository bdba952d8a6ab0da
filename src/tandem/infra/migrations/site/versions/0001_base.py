"""What every module of the site stands on: events, audit, jobs."""

from alembic import op

from tandem.infra.migrations import BASE, jobs_schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(BASE)
    jobs_schema()
