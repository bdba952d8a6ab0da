"""Where a certificate says that its state can be learned: lists, and who answers for one by one."""

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID


def crl_urls(certificate: x509.Certificate) -> list[str]:
    """Its distribution points that are addresses of the web (RFC 5280, 4.2.1.13), in their order."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except Exception:
        return []
    return [
        name.value
        for point in points
        # One of other reasons or of another issuer is not this certificate's whole list.
        if point.reasons is None and point.crl_issuer is None
        for name in point.full_name or ()
        if isinstance(name, x509.UniformResourceIdentifier) and _web(name.value)
    ]


def names_lists(certificate: x509.Certificate) -> bool:
    """Whether it has distribution points at all, like those of a directory (LDAP)."""
    try:
        certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except Exception:
        return False
    return True


def ocsp_urls(certificate: x509.Certificate) -> list[str]:
    """Its responders (RFC 5280, 4.2.2.1)."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except Exception:
        return []
    return [
        one.access_location.value
        for one in access.value
        if one.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(one.access_location, x509.UniformResourceIdentifier)
        and _web(one.access_location.value)
    ]


def _web(url: str) -> bool:
    """Both are signed by themselves and are served by HTTP: TLS would ask for them again."""
    return url.lower().startswith("http://")
