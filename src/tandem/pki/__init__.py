"""Keys, requests, certificates, PFX and revocation lists. Rules and bytes; no database."""

from tandem.pki.authority import Authority, name, new_root
from tandem.pki.bundles import (
    BadCertificate,
    CertificatePath,
    build_path,
    pem,
    read_certificates,
    sha1_thumbprint,
    sha256_fingerprint,
)
from tandem.pki.clients import NotAClient, check_client
from tandem.pki.keys import (
    UNREADABLE,
    PrivateKey,
    PublicKey,
    generate_key,
    jwk_thumbprint,
    key_pem,
    load_key,
    public_jwk,
    same_key,
)
from tandem.pki.pfx import BadPfx, Pfx, WrongPassword, pfx_export, pfx_open
from tandem.pki.requests import BadRequest, certificate_request, read_request, windows_request
from tandem.pki.signed import BadSignature, NotSigned, Signed, read_signed

__all__ = [
    "UNREADABLE",
    "Authority",
    "BadCertificate",
    "BadPfx",
    "BadRequest",
    "BadSignature",
    "CertificatePath",
    "NotAClient",
    "NotSigned",
    "Pfx",
    "PrivateKey",
    "PublicKey",
    "Signed",
    "WrongPassword",
    "build_path",
    "certificate_request",
    "check_client",
    "generate_key",
    "jwk_thumbprint",
    "key_pem",
    "load_key",
    "name",
    "new_root",
    "pem",
    "pfx_export",
    "pfx_open",
    "public_jwk",
    "read_certificates",
    "read_request",
    "read_signed",
    "same_key",
    "sha1_thumbprint",
    "sha256_fingerprint",
    "windows_request",
]
