"""What the authority says about itself: discovery documents, and the cloud for Terraform."""

import re
from typing import Any
from urllib.parse import urlsplit

from tandem.tenant.oidc import catalogue
from tandem.tenant.oidc.grants import DEVICE_CODE_GRANT, DEVICE_GRANT
from tandem.tenant.oidc.model import OidcSettings
from tandem.tenant.oidc.scopes import OPENID

ANY_TENANT = ("common", "organizations")


def base_of(settings: OidcSettings, host: str) -> str:
    """The address that an answer names: the request's own when it is one of our names, so that a
    client which is redirected to us by name stays there; else the configured one."""
    own = urlsplit(settings.base)
    name = host.lower().rpartition(":")[0] if re.search(r":\d+$", host) else host.lower()
    allowed = (own.hostname, *(item.lower() for item in settings.extra_hosts))
    if name in allowed and re.fullmatch(r"[a-z0-9.-]+(:\d{1,5})?", host.lower()):
        return f"{own.scheme}://{host.lower()}"
    return settings.base


def openid_configuration(
    settings: OidcSettings, host: str, name: str, tenant_id: str, version: int
) -> dict[str, Any]:
    """MSAL takes the tenant from the first segment of `token_endpoint`, so that is its id even
    when it was asked for by domain; the issuer is the configured one under every name."""
    base = base_of(settings, host)
    common = name.lower() in ANY_TENANT
    here = f"{base}/{name.lower() if common else tenant_id}"
    v2 = "v2.0/" if version == 2 else ""
    issuer = f"{settings.base}/{'{tenantid}' if common else tenant_id}"
    methods = ["client_secret_post", "private_key_jwt", "client_secret_basic"]
    grants = [
        "authorization_code",
        "refresh_token",
        "client_credentials",
        DEVICE_CODE_GRANT,
        DEVICE_GRANT,
    ]
    if settings.password_grant:
        grants.append("password")
    return {
        "issuer": issuer + ("/v2.0" if version == 2 else "/"),
        "authorization_endpoint": f"{here}/oauth2/{v2}authorize",
        "token_endpoint": f"{here}/oauth2/{v2}token",
        "device_authorization_endpoint": f"{here}/oauth2/{v2}devicecode",
        "jwks_uri": f"{here}/discovery/{v2}keys",
        "end_session_endpoint": f"{here}/oauth2/{v2}logout",
        "userinfo_endpoint": f"{base}/oidc/userinfo",
        "response_types_supported": ["code", "id_token", "code id_token"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS256", "PS256"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": sorted(OPENID),
        "grant_types_supported": grants,
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "token_endpoint_auth_methods_supported": methods,
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_supported": [
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "nbf",
            "auth_time",
            "nonce",
            "sid",
            "c_hash",
            "name",
            "preferred_username",
            "upn",
            "oid",
            "tid",
            "ver",
            "email",
            "given_name",
            "family_name",
        ],
        "tenant_region_scope": None,
        "cloud_instance_name": urlsplit(base).netloc,
        "cloud_graph_host_name": urlsplit(base).netloc,
        "msgraph_host": urlsplit(base).netloc,
    }


def instance(settings: OidcSettings, version: str) -> dict[str, Any]:
    """The answer to instance discovery. The question has lost its port on the way (MSAL), so the
    address is the configured one, never an echo."""
    found: dict[str, Any] = {
        "tenant_discovery_endpoint": (
            f"{settings.base}/common/v2.0/.well-known/openid-configuration"
        ),
        "api-version": version,
    }
    own = urlsplit(settings.base).hostname or ""
    found["metadata"] = [
        {"preferred_network": own, "preferred_cache": own, "aliases": [own]},
        *(
            {"preferred_network": name, "preferred_cache": name, "aliases": [name]}
            for name in settings.extra_hosts
            if name.startswith(("login.", "sts."))
        ),
    ]
    return found


def user_realm(settings: OidcSettings, login: str, known: bool) -> dict[str, Any]:
    """What MSAL asks before it sends a password. It says which domains are ours, not who exists."""
    own = urlsplit(settings.base).netloc
    if not known:
        return {"ver": "1.0", "account_type": "Unknown", "cloud_instance_name": own}
    return {
        "ver": "1.0",
        "account_type": "Managed",
        "domain_name": login.rpartition("@")[2].lower(),
        "cloud_instance_name": own,
        "cloud_audience_urn": "urn:federation:MicrosoftOnline",
    }


def cloud(settings: OidcSettings, host: str) -> dict[str, Any]:
    """`metadata_host` of Terraform's azuread."""
    base = base_of(settings, host)
    return {
        "name": "Tandem",
        "portal": f"{base}/console",
        "resourceManager": f"{base}/",
        "authentication": {
            "loginEndpoint": f"{base}/",
            "audiences": [catalogue.GRAPH_URI, f"{base}/"],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "graph": f"{base}/",
        "graphAudience": f"{catalogue.GRAPH_URI}/",
        "microsoftGraphResourceId": f"{base}/",
        "media": f"{base}/",
        "batch": f"{base}/",
        "gallery": f"{base}/",
        "sqlManagement": f"{base}/",
        "suffixes": {"storage": "", "keyVaultDns": "", "sqlServerHostname": ""},
    }
