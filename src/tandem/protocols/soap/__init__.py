"""MS-MDE2 enrollment messages: SOAP 1.2 in and out, no I/O (windows-mdm.md 2 to 10).

device                                      server
  Discover {email, version}           →
                                      ←     DiscoverResponse {policy, enrollment, sign-in URLs}
  GetPolicies + token                 →
                                      ←     GetPoliciesResponse {RSA 2048, SHA-256}
  RequestSecurityToken + token + CSR  →
                                      ←     …ResponseCollection {provisioning document}
                                      ←     Fault, at every step instead
"""

from tandem.protocols.soap.codec import (
    as_soap11,
    discover_response,
    fault,
    is_soap11,
    message_id,
    one_credential,
    policies_response,
    read,
    token_response,
)
from tandem.protocols.soap.model import (
    DISCOVER_RESPONSE,
    FEDERATED,
    GET_POLICIES_RESPONSE,
    JWT_TYPE,
    ON_PREMISE,
    PASSWORD_TEXT,
    REQUEST_TOKEN_RESPONSE,
    USER_TOKEN_TYPE,
    BadMessage,
    BadSecurity,
    Credential,
    Discover,
    DiscoverResponse,
    Envelope,
    Fault,
    GetPolicies,
    KeyPolicy,
    RequestToken,
    TokenResponse,
)

__all__ = [
    "DISCOVER_RESPONSE",
    "FEDERATED",
    "GET_POLICIES_RESPONSE",
    "JWT_TYPE",
    "ON_PREMISE",
    "PASSWORD_TEXT",
    "REQUEST_TOKEN_RESPONSE",
    "USER_TOKEN_TYPE",
    "BadMessage",
    "BadSecurity",
    "Credential",
    "Discover",
    "DiscoverResponse",
    "Envelope",
    "Fault",
    "GetPolicies",
    "KeyPolicy",
    "RequestToken",
    "TokenResponse",
    "as_soap11",
    "discover_response",
    "fault",
    "is_soap11",
    "message_id",
    "one_credential",
    "policies_response",
    "read",
    "token_response",
]
