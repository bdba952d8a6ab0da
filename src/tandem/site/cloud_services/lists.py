"""Revocation lists, fetched from where a certificate says that they are."""

import httpx
from cryptography import x509

from tandem import pki
from tandem.infra import net
from tandem.infra.errors import AppError, Kind

# An authority of a million revoked certificates has a list of 40 MB.
_MOST_BYTES = 48 * 1024 * 1024


class ListUnavailable(AppError):
    """Nothing, or something else, lies where the list should be."""

    kind, code = Kind.UNAVAILABLE, "trust.list-unavailable"


async def fetch(url: str, *, seconds: float = 5.0) -> x509.CertificateRevocationList:
    """The list at this address, whoever signed it. Raises ListUnavailable, BadCertificate."""
    data = bytearray()
    try:
        async with net.plain_client(timeout=seconds) as web, web.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise _unavailable(url, f"the answer is {answer.status_code}")
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > _MOST_BYTES:
                    raise _unavailable(url, "what lies there is too large")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unavailable(url, str(error) or type(error).__name__) from None
    return pki.read_crl(bytes(data))


def _unavailable(url: str, why: str) -> ListUnavailable:
    return ListUnavailable(
        f"{url} gives no revocation list: {why[:200]}.",
        cure="Look whether the authority publishes it there, and whether a firewall is between.",
    )
