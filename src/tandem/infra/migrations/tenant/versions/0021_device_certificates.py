"""Certificates of devices, one row each; the profile that they are issued by; their revocation list."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE enrollment_certificate (
            fingerprint text PRIMARY KEY,
            -- Hexadecimal; empty of certificates that were issued before serial numbers were kept.
            serial text NOT NULL,
            device_id text NOT NULL REFERENCES enrollment_device ON DELETE CASCADE,
            key_sha256 text NOT NULL,
            not_before timestamptz NOT NULL,
            not_after timestamptz NOT NULL,
            -- How long before its end the device was told to renew it.
            renewal_days integer NOT NULL,
            -- 'issued': a renewal that the device has not used yet; it counts from its first session.
            state text NOT NULL CHECK (state IN ('issued', 'active', 'superseded', 'revoked')),
            reason text NOT NULL DEFAULT '',
            changed_at timestamptz NOT NULL
        );
        CREATE UNIQUE INDEX enrollment_certificate_serial ON enrollment_certificate (serial)
            WHERE serial <> '';
        CREATE INDEX enrollment_certificate_device ON enrollment_certificate (device_id, not_before);
        CREATE INDEX enrollment_certificate_key ON enrollment_certificate (key_sha256);
        CREATE INDEX enrollment_certificate_ended ON enrollment_certificate (changed_at)
            WHERE state IN ('superseded', 'revoked');

        INSERT INTO enrollment_certificate
            SELECT fingerprint, '', id, key_sha256, enrolled_at - interval '1 day',
                enrolled_at + interval '365 days', 60,
                CASE state WHEN 'unenrolled' THEN 'revoked' ELSE 'active' END,
                CASE state WHEN 'unenrolled' THEN 'cessationOfOperation' ELSE '' END,
                coalesce(ended_at, enrolled_at)
            FROM enrollment_device;

        -- Of the certificate that the device's sessions use now.
        ALTER TABLE enrollment_device ADD certificate_ends_at timestamptz;
        UPDATE enrollment_device SET certificate_ends_at = enrolled_at + interval '365 days';

        CREATE TABLE enrollment_profile (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            validity_days integer NOT NULL,
            renewal_days integer NOT NULL,
            retry_days integer NOT NULL,
            key_bits integer NOT NULL,
            providers text[] NOT NULL
        );

        CREATE TABLE enrollment_revocation_list (
            singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
            number bigint NOT NULL,
            content bytea NOT NULL,
            made_at timestamptz NOT NULL
        );

        -- Enrollments that never came back, and others of the same hardware.
        CREATE INDEX enrollment_device_pending ON enrollment_device (enrolled_at)
            WHERE seen_at IS NULL AND state = 'enrolled';
        CREATE INDEX enrollment_device_hardware ON enrollment_device (hardware_id)
            WHERE hardware_id <> '';
    """)
