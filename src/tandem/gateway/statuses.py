"""The status texts of gateway and connection point: one table (spec 4.2).

A status text stands in the answer's first line, as in the field, and in its JSON, with what happened
and what to do. `docs/protocols/gateway.md` shows the same table; a test holds the two together, and
every `CMG…` in this package against it.
"""

from dataclasses import dataclass

from tandem.gateway.model import Refusal


@dataclass(frozen=True, slots=True)
class Status:
    """`cause` is for administrators, `message` and `cure` are for whoever asked."""

    status: int
    message: str
    cure: str
    cause: str
    retry_after: int = 0


_CLIENT = "Correct the client; the agent sends no such request."
_TOKEN = "Get a new token; the device's tenant has to be connected to the site."  # noqa: S105
_LATER = "Try again later."

STATUSES: dict[str, Status] = {
    "CMGService_Bad_Request": Status(
        400, "The request is not valid HTTP/1.1.", _CLIENT, "No client of the site, or an attack"
    ),
    "CMGService_Invalid_Url": Status(
        400,
        "The address cannot be used.",
        "Write the address as the site gave it: a path, without encoded slashes or dots.",
        "No client of the site, or an attack",
    ),
    "CMGService_Token_Required": Status(
        401,
        "This address needs a token.",
        "Send a token of the directory or of the site in the Authorization header.",
        "A client without a token at CCM_Proxy_ServerAuth",
    ),
    "CMGService_Invalid_Token": Status(
        401,
        "The token is not one that this gateway believes.",
        _TOKEN,
        "The token expired, a clock is wrong, or the tenant is not connected to the site",
    ),
    "CMGService_Clientcertificaterequired": Status(
        403,
        "This address needs a client certificate.",
        "Present a client certificate of a trusted authority.",
        "A client without a certificate at CCM_Proxy_MutualAuth, or no root was uploaded",
    ),
    "CMGService_Invalid_Certificate": Status(
        403,
        "The client's certificate is not of a trusted authority, not valid now, or not for clients.",
        "Upload the root of its authority, or give the device another certificate.",
        "A root or an intermediate is missing on the gateway, or the certificate is over",
    ),
    "CMGService_Certificate_Revoked": Status(
        403,
        "The client's certificate is revoked.",
        "Give the device a new certificate.",
        "The certificate stands in its authority's revocation list",
    ),
    "CMGService_Crl_Missing": Status(
        403,
        "The certificate revocation list (CRL) of the client's authority is missing.",
        "Upload this authority's CRL, or switch the check off in the gateway's properties.",
        "Revocation is checked, and no list of this authority was uploaded",
    ),
    "CMGService_Crl_Expired": Status(
        403,
        "The certificate revocation list (CRL) of the client's authority expired.",
        "Upload a newer CRL of this authority to the gateway.",
        "The list is older than it may be",
    ),
    "CMGService_Ocsp_Unavailable": Status(
        503,
        "Whether the client's certificate is revoked is not known yet: its responder (OCSP) was not"
        " asked, or does not answer.",
        "Try again in a moment; if it lasts, look at the responder that the certificate names.",
        "The site says that certificates must be asked about (`ocsp` is hard), and the gateway does not"
        " reach the responder",
        2,
    ),
    "CMGService_Not_Published": Status(
        403,
        "This address is not published through the gateway.",
        "Allow gateway traffic on the site system that it belongs to (management point, software"
        " update point), or correct the address.",
        "Gateway traffic is not allowed on the site system, or the client has an old address",
    ),
    "CMGService_Content_Not_Found": Status(
        404,
        "This content is not served by the gateway.",
        "Ask the management point again where it is.",
        "The package was removed from the gateway, or distributed again since the token was given",
    ),
    "CMGService_Method": Status(
        405, "This method is not allowed here.", _CLIENT, "No client of the site, or an attack"
    ),
    "CMGService_Timeout": Status(
        408,
        "The request did not arrive whole in time.",
        "Try again over a better connection.",
        "A slow line, or an attack that holds connections open",
    ),
    "CMGService_Content_Length": Status(
        413,
        "The request is larger than this address takes.",
        "Send less at once.",
        "More than the endpoint's limit, which the site publishes",
    ),
    "CMGService_Url_Too_Long": Status(
        414, "The address is too long.", _CLIENT, "No client of the site, or an attack"
    ),
    "CMGService_Range": Status(
        416,
        "The content has no such range.",
        "Begin the download anew.",
        "What the client has of it is not of this content, or an attack",
    ),
    "CMGService_Expectation": Status(
        417,
        "The only expectation that is met here is 100-continue.",
        _CLIENT,
        "No client of the site, or an attack",
    ),
    "CMGService_Rate_Limit": Status(
        429,
        "This client asks too often.",
        "Wait as long as Retry-After says.",
        "A client in a loop, a stolen token, or a limit that is too low: `gateway_limits` of the site",
        10,
    ),
    "CMGService_Connections": Status(
        429,
        "Too many connections come from this address.",
        "Close some, or wait.",
        "An attack, or many devices behind one address: `gateway_limits` of the site",
        30,
    ),
    "CMGService_Headers": Status(
        431, "The request's headers are too many.", _CLIENT, "No client of the site, or an attack"
    ),
    "CMGService_No_Connection_Point": Status(
        503,
        "No connection point of the site is connected to this gateway.",
        "Start the connection point, or look why it cannot dial: `tandem connection-point show`.",
        "The connection point is down, or cannot reach the gateway",
        10,
    ),
    "CMGService_Busy": Status(
        503,
        "The site is busy.",
        "Try again in a minute.",
        "More requests than the connection points carry for longer than the queue waits: add"
        " connection points or instances",
        30,
    ),
    "CMGService_Stopping": Status(
        503,
        "This instance of the gateway is stopping.",
        "Ask again: another one answers.",
        "The instance is restarted or stopped while a request waited at the site",
        1,
    ),
    "CMGService_Content_Wrong": Status(
        502,
        "What the site gave is not this content: its SHA-256 is another one.",
        "Distribute the package again; something between site and gateway alters it.",
        "The site's content store is damaged, or something on the way alters it; nothing is kept",
    ),
    "CMGService_Content_Unavailable": Status(
        503,
        "The content is not at hand, and the site does not give it now.",
        "Try again, or download it from the management point.",
        "The first use of a package, or of any since the instance was started, needs the site",
        10,
    ),
    "CMGService_Http_Version": Status(
        505, "This gateway speaks HTTP/1.1.", _CLIENT, "No client of the site, or a health check"
    ),
    "CMGService_Storage_Full": Status(
        507,
        "The gateway's store for content takes nothing more.",
        "Make room on its disk, remove packages from the gateway, or repair the store.",
        "An alarm, and no answer: content goes on to come from the site, every time",
    ),
    "CMGConnector_Bad_Request": Status(
        400,
        "The connection point cannot read this request.",
        _CLIENT,
        "What came through the tunnel is no request that a gateway writes: look at the gateway",
    ),
    "CMGConnector_Forbidden": Status(
        403,
        "The connection point does not trust the management point's certificate.",
        "Give the management point a valid certificate of the site, with its name.",
        "The certificate at the management point is wrong, expired or left over",
    ),
    "CMGConnector_Not_Mapped": Status(
        404,
        "The connection point knows no role behind this address.",
        "Wait until the connection point has the site's newest configuration.",
        "Gateway and connection point have different configurations for a moment",
    ),
    "CMGConnector_Disconnected": Status(
        502,
        "The request was lost on its way to the site.",
        "Try again; if it lasts, look at the connection point.",
        "The connection point, its tunnel or the management point ended while a request was under"
        " way that must not be repeated",
        5,
    ),
    "CMGConnector_Management_Point_Unreachable": Status(
        502,
        "The management point does not answer the connection point.",
        "Start the management point; the connection point goes on by itself.",
        "The management point is down, or a firewall is between",
    ),
    "CMGConnector_Timeout": Status(
        504,
        "The site did not answer in time.",
        _LATER,
        "The management point or its database is overloaded",
    ),
}


def refusal(code: str, message: str = "", cure: str = "") -> Refusal:
    """A refusal with this status text; raises KeyError for one that is not in the table."""
    known = STATUSES[code]
    return Refusal(
        known.status,
        code,
        message or known.message,
        cure or known.cure,
        retry_after=known.retry_after,
    )
