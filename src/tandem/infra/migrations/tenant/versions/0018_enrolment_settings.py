"""Automatic enrolment: the MAM user scope, and the three MDM addresses where they are not our own."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.execute("""
ALTER TABLE directory_tenant
    ADD mam_scope text NOT NULL DEFAULT 'none' CHECK (mam_scope IN ('none', 'some', 'all')),
    ADD mdm_discovery_url text,
    ADD mdm_terms_of_use_url text,
    ADD mdm_compliance_url text;

CREATE TABLE directory_mam_scope_group (
    group_id uuid PRIMARY KEY REFERENCES directory_group (id) ON DELETE CASCADE
);
""")
