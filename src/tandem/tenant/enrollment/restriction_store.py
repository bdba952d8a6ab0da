from tandem.infra.database import Tx


async def personal_devices(tx: Tx, user_id: str, windows_id: str, directory_device_id: str) -> int:
    """How many of a user's own devices are enrolled, not counting the one that enrols again: it has
    one of these ids, and Windows gives it a new one each time (windows-mdm, 6.1)."""
    row = await (
        await tx.execute(
            "SELECT count(*) AS n FROM enrollment_device WHERE user_id = %s"
            " AND state <> 'unenrolled' AND owner_type = 'personal' AND windows_id <> %s"
            " AND (directory_device_id = '' OR directory_device_id <> %s)",
            (user_id, windows_id, directory_device_id),
        )
    ).fetchone()
    assert row is not None
    return int(row["n"])


async def lock_user(tx: Tx, user_id: str) -> None:
    """One enrollment of a user at a time, so that two at once do not pass the limit together."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('mdm-limit:' || %s))", (user_id,))
