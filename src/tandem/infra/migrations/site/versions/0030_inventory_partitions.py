"""Each class of the inventory is a table of its own: who asks for one class reads no other."""

from alembic import op

revision = "0030"
down_revision = "0029"

# Class (without SMS_G_System_) → its texts and its numbers, in small letters.
_CLASSES = {
    "operating_system": ("caption version buildnumber", "totalvisiblememorysize"),
    "computer_system": ("name manufacturer model", "numberofprocessors"),
    "processor": ("deviceid name manufacturer", "numberofcores numberoflogicalprocessors"),
    "x86_pc_memory": ("", "totalphysicalmemory"),
    "pc_bios": ("manufacturer smbiosbiosversion releasedate serialnumber", ""),
    "logical_disk": ("deviceid filesystem", "size"),
    "network_adapter": ("name macaddress", ""),
}


def upgrade() -> None:
    op.execute("""
        ALTER TABLE collections_inventory RENAME TO collections_inventory_before;
        ALTER TABLE collections_inventory_before
            RENAME CONSTRAINT collections_inventory_pkey TO collections_inventory_before_pkey;
        CREATE TABLE collections_inventory (
            resource_id bigint NOT NULL REFERENCES collections_resource ON DELETE CASCADE,
            class text NOT NULL,
            instance integer NOT NULL,
            properties jsonb NOT NULL,
            folded jsonb NOT NULL,
            reported_at timestamptz NOT NULL,
            PRIMARY KEY (resource_id, class, instance)
        ) PARTITION BY LIST (class);
        CREATE TABLE collections_inventory_other PARTITION OF collections_inventory DEFAULT;
    """)
    for of in _CLASSES:
        op.execute(
            f"CREATE TABLE collections_inventory_{of} PARTITION OF collections_inventory"
            f" FOR VALUES IN ('sms_g_system_{of}')"
        )
    op.execute("""
        INSERT INTO collections_inventory
            SELECT resource_id, class, instance, properties, folded, reported_at
            FROM collections_inventory_before;
        DROP TABLE collections_inventory_before;

        CREATE TRIGGER collections_note_new AFTER INSERT ON collections_inventory
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_inventory();
        CREATE TRIGGER collections_note_change AFTER UPDATE ON collections_inventory
            REFERENCING NEW TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_inventory();
        CREATE TRIGGER collections_note_gone AFTER DELETE ON collections_inventory
            REFERENCING OLD TABLE AS touched FOR EACH STATEMENT
            EXECUTE FUNCTION collections_note_inventory();
    """)
    for of, (texts, numbers) in _CLASSES.items():
        for name in texts.split():
            _index(of, name, f"(folded->>'{name}') text_pattern_ops")
        for name in numbers.split():
            typed = f"jsonb_typeof(folded->'{name}') = 'number'"
            _index(of, name, f"(CASE WHEN {typed} THEN (folded->>'{name}')::numeric END)")


def _index(of: str, attribute: str, expression: str) -> None:
    op.execute(
        f"CREATE INDEX inventory_{of}_{attribute} ON collections_inventory_{of} ({expression})"
    )
