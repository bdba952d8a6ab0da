"""Refusals of the authority with their AADSTS numbers (graph-compat.md 3.6)."""

from typing import Any

from tandem.infra.errors import AppError, Kind

# Number to OAuth error and HTTP status.
AADSTS: dict[int, tuple[str, int]] = {
    16000: ("interaction_required", 400),
    50011: ("invalid_client", 400),
    50013: ("invalid_grant", 400),
    50020: ("invalid_grant", 400),
    50034: ("invalid_grant", 400),
    50053: ("invalid_grant", 400),
    50055: ("invalid_grant", 400),
    50057: ("invalid_grant", 400),
    50058: ("login_required", 400),
    50076: ("invalid_grant", 400),
    50126: ("invalid_grant", 400),
    50155: ("invalid_grant", 400),
    50173: ("invalid_grant", 400),
    53000: ("invalid_grant", 400),
    53003: ("invalid_grant", 400),
    54005: ("invalid_grant", 400),
    65001: ("invalid_grant", 400),
    65004: ("access_denied", 400),
    70000: ("invalid_grant", 400),
    70003: ("unsupported_grant_type", 400),
    70008: ("invalid_grant", 400),
    70011: ("invalid_scope", 400),
    70016: ("authorization_pending", 400),
    70018: ("bad_verification_code", 400),
    70019: ("expired_token", 400),
    70020: ("authorization_declined", 400),
    70021: ("slow_down", 400),
    70043: ("invalid_grant", 400),
    90002: ("invalid_tenant", 400),
    90023: ("invalid_request", 400),
    90033: ("temporarily_unavailable", 503),
    90094: ("access_denied", 400),
    90100: ("invalid_request", 400),
    135011: ("invalid_grant", 400),
    500011: ("invalid_resource", 400),
    500021: ("access_denied", 400),
    501481: ("invalid_grant", 400),
    700016: ("unauthorized_client", 400),
    700027: ("invalid_client", 401),
    700054: ("unsupported_response_type", 400),
    700082: ("invalid_grant", 400),
    900144: ("invalid_request", 400),
    900491: ("invalid_request", 400),
    7000112: ("unauthorized_client", 400),
    7000215: ("invalid_client", 401),
    7000218: ("invalid_client", 401),
    7000222: ("invalid_client", 401),
}

# The words at the redirect URI (OpenID Connect Core 3.1.2.6) where they differ.
_AT_REDIRECT = {
    50053: "access_denied",
    50057: "access_denied",
    50076: "interaction_required",
    53000: "interaction_required",
    53003: "access_denied",
    65001: "consent_required",
}

# Refusals of other modules, spoken as an AADSTS number.
NUMBER_OF: dict[Kind, int] = {
    Kind.INVALID: 90100,
    Kind.UNAUTHENTICATED: 50126,
    Kind.FORBIDDEN: 50057,
    Kind.NOT_FOUND: 90100,
    Kind.CONFLICT: 90100,
    Kind.GONE: 70008,
    Kind.TOO_LARGE: 90100,
    Kind.RATE_LIMITED: 50053,
    Kind.UNAVAILABLE: 90033,
    Kind.UNSUPPORTED: 70003,
}


class OAuthError(AppError):
    """A refusal with its AADSTS number. `error` is OAuth's word for it."""

    code = "oidc.refused"

    def __init__(
        self,
        number: int,
        message: str,
        *,
        cure: str = "",
        suberror: str = "",
        claims: str = "",
        retry_after_seconds: int = 0,
    ) -> None:
        super().__init__(message, cure=cure, number=number)
        self.number = number
        self.suberror = suberror
        self.claims = claims  # What the client has to ask for next time (a JSON text).
        self.retry_after_seconds = retry_after_seconds
        self.error, self.status = AADSTS[number]

    @property
    def text(self) -> str:
        return f"AADSTS{self.number}: {self.message} {self.cure}".strip()

    def fields(self) -> list[tuple[str, str]]:
        """The refusal as parameters of the redirect URI."""
        found = [
            ("error", _AT_REDIRECT.get(self.number, self.error)),
            ("error_description", self.text),
        ]
        if self.suberror:
            found.append(("suberror", self.suberror))
        if self.claims:
            found.append(("claims", self.claims))
        return found


def spoken(error: AppError) -> OAuthError:
    """Any refusal in the authority's vocabulary."""
    if isinstance(error, OAuthError):
        return error
    wait = int(error.details.get("retry_after_seconds", 0))
    number = NUMBER_OF[error.kind]
    return OAuthError(number, error.message, cure=error.cure, retry_after_seconds=wait)


def body_of(error: OAuthError, trace_id: str, correlation_id: str, at: str) -> dict[str, Any]:
    """The refusal as the JSON of the token endpoint."""
    body: dict[str, Any] = {
        "error": error.error,
        "error_description": (
            f"{error.text} Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {at}"
        ),
        "error_codes": [error.number],
        "timestamp": at,
        "trace_id": trace_id,
        "correlation_id": correlation_id,
        "error_uri": f"https://login.microsoftonline.com/error?code={error.number}",
    }
    if error.suberror:
        body["suberror"] = error.suberror
    if error.claims:
        body["claims"] = error.claims
    return body
