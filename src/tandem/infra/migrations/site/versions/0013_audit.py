"""The audit log only grows, and its heads are signed."""

from alembic import op

from tandem.infra.migrations import AUDIT_HEADS

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.get_bind().exec_driver_sql(AUDIT_HEADS.replace("%", "%%"))
