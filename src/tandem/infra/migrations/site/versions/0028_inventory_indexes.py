"""An index for each attribute of the hardware inventory."""

from alembic import op

revision = "0028"
down_revision = "0027"

# Class (without SMS_G_System_) → its texts and its numbers, in small letters.
_CLASSES = {
    "operating_system": (
        "caption version buildnumber",
        "totalvisiblememorysize",
    ),
    "computer_system": (
        "name manufacturer model",
        "numberofprocessors",
    ),
    "processor": (
        "deviceid name manufacturer",
        "numberofcores numberoflogicalprocessors",
    ),
    "x86_pc_memory": (
        "",
        "totalphysicalmemory",
    ),
    "pc_bios": (
        "manufacturer smbiosbiosversion releasedate serialnumber",
        "",
    ),
    "logical_disk": (
        "deviceid filesystem",
        "size",
    ),
    "network_adapter": (
        "name macaddress",
        "",
    ),
}


def upgrade() -> None:
    # Made for equality alone; the indexes below serve equality, beginnings and numbers.
    op.execute("DROP INDEX collections_inventory_folded_idx")
    for of, (texts, numbers) in _CLASSES.items():
        for name in texts.split():
            _index(of, name, f"(folded->>'{name}') text_pattern_ops")
        for name in numbers.split():
            typed = f"jsonb_typeof(folded->'{name}') = 'number'"
            _index(of, name, f"(CASE WHEN {typed} THEN (folded->>'{name}')::numeric END)")


def _index(of: str, attribute: str, expression: str) -> None:
    op.execute(
        f"CREATE INDEX inventory_{of}_{attribute} ON collections_inventory ({expression})"
        f" WHERE class = 'sms_g_system_{of}'"
    )
