"""Which settings are secrets, by what they are called: no column marks them."""

import re

# Nodes whose value is a secret, by what they are called: passwords of accounts and certificates, the
# challenge of an enrolment, keys of networks and tunnels.
_SECRETS = re.compile(
    r"(?:password|passphrase|secret|challenge|psk|sharedkey|privatekey|token|pfxcertblob|wlanxml"
    r"|profilexml)/*$",
    re.I,
)
# What a switch is called so for: "1" is no password.
_SWITCHES = re.compile(r"(?:\d{0,3}|true|false|<enabled/>|<disabled/>)", re.I)


def is_secret(setting: str, value: str) -> bool:
    return bool(_SECRETS.search(setting)) and not _SWITCHES.fullmatch(value)


def shown(setting: str, value: str) -> str:
    """A setting's value for people: that of a secret is stars."""
    return "********" if is_secret(setting, value) else value
