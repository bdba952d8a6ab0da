"""Why TLS ended before it began, in words that somebody can act on."""

import ssl
from collections import Counter

# OpenSSL's number of what is wrong with a client's certificate (X509_V_ERR_…).
_CERTIFICATE = {
    9: "certificate not valid yet",
    10: "certificate expired",
    18: "certificate self-signed",
    **dict.fromkeys((2, 19, 20, 21), "certificate of an unknown authority"),
    **dict.fromkeys((24, 25, 32, 79), "certificate of who is no authority"),
    26: "certificate not for clients",
    **dict.fromkeys((66, 67, 68), "certificate too weak"),
}
# OpenSSL's name of what is wrong otherwise.
_REASONS = {
    "UNSUPPORTED_PROTOCOL": "no shared protocol",
    "VERSION_TOO_LOW": "no shared protocol",
    "WRONG_VERSION_NUMBER": "no TLS",
    "HTTP_REQUEST": "no TLS",
    "NO_SHARED_CIPHER": "no shared cipher",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no shared cipher",
    "NO_SUITABLE_KEY_SHARE": "no shared cipher",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no certificate",
    "UNEXPECTED_EOF_WHILE_READING": "went away",
}


def cause(error: BaseException) -> str:
    """A few words that do not depend on who it was."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        return _CERTIFICATE.get(code, f"certificate refused ({error.verify_message})"[:80])
    if isinstance(error, ssl.SSLError):
        reason = str(error.reason or "").upper()
        if "ALERT" in reason:
            # The client's own word: it does not believe the gateway, mostly.
            return f"refused by the client ({reason.split('ALERT_')[-1].replace('_', ' ').lower()})"
        return _REASONS.get(reason, reason.replace("_", " ").lower() or "went away")
    if isinstance(error, TimeoutError):
        return "too slow"
    return "went away"


class Handshakes:
    """Those that failed since the last line of the log, by cause."""

    # A stranger must not fill the log with words of its own.
    MOST = 24

    def __init__(self) -> None:
        self._causes: Counter[str] = Counter()

    def failed(self, error: BaseException) -> None:
        found = cause(error)
        if found not in self._causes and len(self._causes) >= self.MOST:
            found = "other"
        self._causes[found] += 1

    def take(self) -> dict[str, int]:
        taken = dict(self._causes.most_common())
        self._causes.clear()
        return taken
