"""What an agent and its site say to each other: JSON over HTTPS under the field's endpoint names.

    GET  AADAuthInfo?TenantID=…          on the gateway: which app to ask the directory for
    POST CCM_STS                         a directory token and a proof of the device's key, for a
                                         CCM token that is bound to that key
    GET  SMS_MP/.sms_aut?SITESIGNCERT    who signs for the site; ?MPLIST where to find it
    GET  CCM_Client/manifest, /<sha256>  which client to install, signed; and its bytes
    POST ccm_system_tokenauth/request    registration: the client's id
    GET  SMS_MP/.sms_pol                 policy, signed by the site, with its end of validity
    POST ccm_incoming                    messages, each with an id, answered with the ids accepted

Every request after CCM_STS is signed with the device's P-256 key (`sign_request`). What the site
signs (`seal`) is trusted for the root that the device carries, not for the channel it came by.
The decisions are in ADR 5.
"""

from tandem.protocols.ccm.documents import (
    BadDocument,
    SigningIdentity,
    open_manifest,
    open_policy,
    seal,
)
from tandem.protocols.ccm.model import (
    COMANAGEMENT_TOPIC,
    FRAMEWORK_TOPIC,
    HEARTBEAT_TOPIC,
    INVENTORY_TOPIC,
    SETUP_TOPIC,
    AuthInfo,
    ClientManifest,
    ClientSettings,
    ComanagementState,
    ConfigInfo,
    Configuration,
    ConfigurationPolicy,
    Enacted,
    IncomingReply,
    IncomingRequest,
    Inventory,
    ManagementPoint,
    ManagementPointList,
    Message,
    Policy,
    PolicyContent,
    RegistrationReply,
    RegistrationRequest,
    SiteSigningCertificate,
    TokenReply,
    TokenRequest,
    authentication_bases,
)
from tandem.protocols.ccm.signatures import (
    CLIENT_HEADER,
    DATE_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    BadSignature,
    Signed,
    key_proof,
    open_key_proof,
    public_key,
    read_signature,
    sign_request,
    signed_target,
    verify_request,
)

__all__ = [
    "CLIENT_HEADER",
    "COMANAGEMENT_TOPIC",
    "DATE_HEADER",
    "FRAMEWORK_TOPIC",
    "HEARTBEAT_TOPIC",
    "INVENTORY_TOPIC",
    "NONCE_HEADER",
    "SETUP_TOPIC",
    "SIGNATURE_HEADER",
    "AuthInfo",
    "BadDocument",
    "BadSignature",
    "ClientManifest",
    "ClientSettings",
    "ComanagementState",
    "ConfigInfo",
    "Configuration",
    "ConfigurationPolicy",
    "Enacted",
    "IncomingReply",
    "IncomingRequest",
    "Inventory",
    "ManagementPoint",
    "ManagementPointList",
    "Message",
    "Policy",
    "PolicyContent",
    "RegistrationReply",
    "RegistrationRequest",
    "Signed",
    "SigningIdentity",
    "SiteSigningCertificate",
    "TokenReply",
    "TokenRequest",
    "authentication_bases",
    "key_proof",
    "open_key_proof",
    "open_manifest",
    "open_policy",
    "public_key",
    "read_signature",
    "seal",
    "sign_request",
    "signed_target",
    "verify_request",
]
