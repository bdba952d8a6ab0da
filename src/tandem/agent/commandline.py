"""The command line of ccmsetup: `/parameter:value` first, then `PROPERTY=value`.

Of spec 2.17 some entries change what our bootstrap does, some are known and change nothing here,
and some ask for what this version does not do: those are refused by name, because a client that
was installed otherwise than asked for is worse than none.
"""

import re
from collections.abc import Iterator

import msgspec

from tandem.infra.errors import AppError, Kind
from tandem.protocols import ccm

# What an MDM service carries (spec 3.5).
MAX_CHARACTERS = 1024

_USED_PARAMETERS = {
    "retry",
    "downloadtimeout",
    "forceinstall",
    "logon",
    "uninstall",
    "regtoken",
    "usepkicert",
}
_KNOWN_PARAMETERS = {
    "mp": "the management point is CCMHOSTNAME",
    "nocrlcheck": "the operating system's own rules for revocation apply",
    "service": "the bootstrap runs in the process that starts it",
    "noservice": "the bootstrap runs in the process that starts it",
    "bitspriority": "downloads have one priority",
    "skipprereq": "the client has no prerequisites",
    "excludefeatures": "there is no Software Center to leave out",
    "forcereboot": "no restart is needed",
}
_REFUSED_PARAMETERS = {
    "?": "help installs nothing; `tandem-ccmsetup --help` shows it",
    "source": "installing from a share is not possible; the client comes from CCMHOSTNAME",
    "config": "property files are not in this version; name the properties themselves",
}
_USED_PROPERTIES = {
    "CCMHOSTNAME",
    "SMSSITECODE",
    "SMSMP",
    "AADTENANTID",
    "AADCLIENTAPPID",
    "AADRESOURCEURI",
    "CCMALWAYSINF",
    "CCMLOGMAXSIZE",
    "CCMLOGMAXHISTORY",
}
# With what they are when nobody says otherwise.
_NUMBERS = {"CCMLOGMAXSIZE": 250_000, "CCMLOGMAXHISTORY": 1}
_KNOWN_PROPERTIES = {
    *("FSP", "DNSSUFFIX", "SMSROOTKEYPATH", "RESETKEYINFORMATION", "SMSSIGNCERT", "CCMLOGLEVEL"),
    *("CCMDEBUGLOGGING", "CCMENABLELOGGING", "CCMEVALINTERVAL", "CCMEVALHOUR", "NOTIFYONLY"),
    *("SMSCACHEDIR", "SMSCACHESIZE", "SMSCACHEFLAGS", "CCMHTTPPORT", "CCMHTTPSPORT"),
    *("CCMINSTALLDIR", "SITEREASSIGN", "SMSCONFIGSOURCE", "DISABLESITEOPT", "DISABLECACHEOPT"),
    *("CCMADMINS", "UPGRADETOLATEST", "SMSPUBLICROOTKEY"),
}
_REFUSED_PROPERTIES = {
    "PROVISIONTS": "task sequences are not in this version",
    **dict.fromkeys(
        ("CCMCERTSEL", "CCMCERTSTORE", "CCMFIRSTCERT", "CCMCERTISSUERS"),
        "there is one client certificate, which the agent's settings name (client_certificate)",
    ),
}
_WRAPPED = re.compile(r'(?:^|\s)CCMSETUPCMD=(?:"(?P<quoted>[^"]*)"|(?P<bare>\S+))', re.IGNORECASE)
_REGTOKEN = re.compile(r'(?P<name>/regtoken:)[^\s"]*\s*', re.IGNORECASE)
_SITE_CODE = re.compile(r"^[A-Z0-9]{3}$")


def described() -> str:
    """Every parameter and property of the field, and what becomes of it here."""
    refused = {f"/{name}": why for name, why in _REFUSED_PARAMETERS.items() if name != "?"}
    refused |= _REFUSED_PROPERTIES
    return "\n".join(
        [
            f"used: {' '.join(f'/{name}' for name in sorted(_USED_PARAMETERS))}"
            f" {' '.join(sorted(_USED_PROPERTIES))}",
            f"taken, and change nothing here: {' '.join(f'/{n}' for n in sorted(_KNOWN_PARAMETERS))}"
            f" {' '.join(sorted(_KNOWN_PROPERTIES))}",
            "refused:",
            *(f"  {name}: {why}" for name, why in refused.items()),
        ]
    )


class BadCommandLine(AppError):
    kind, code = Kind.INVALID, "setup.bad-command-line"


class CommandLine(msgspec.Struct, frozen=True):
    """What the bootstrap was told. `remarks` are for the log: entries that change nothing here."""

    host: str
    site_code: str
    parameters: dict[str, str]
    properties: dict[str, str]
    remarks: list[str]

    @property
    def uninstall(self) -> bool:
        return "uninstall" in self.parameters

    @property
    def use_certificate(self) -> bool:
        return "usepkicert" in self.parameters

    @property
    def registration_token(self) -> str:
        """A bulk registration token, which is used once and never kept."""
        return self.parameters.get("regtoken", "")

    @property
    def retry_minutes(self) -> int:
        return int(self.parameters.get("retry") or 10)

    @property
    def timeout_minutes(self) -> int:
        return int(self.parameters.get("downloadtimeout") or 1440)

    @property
    def log_limits(self) -> tuple[int, int]:
        """Bytes of a log file, and how many full ones are kept (spec 2.17: at least 10,000)."""
        size = int(self.properties.get("CCMLOGMAXSIZE") or 250_000)
        return max(10_000, size), int(self.properties.get("CCMLOGMAXHISTORY") or 1)

    @property
    def always_internet(self) -> bool:
        return self.properties.get("CCMALWAYSINF") == "1"


def parse(text: str) -> CommandLine:
    """Read the text as the MSI got it, or what CCMSETUPCMD holds. Raises BadCommandLine."""
    if len(text) > MAX_CHARACTERS:
        raise BadCommandLine(
            f"The command line has {len(text)} characters; at most {MAX_CHARACTERS} are carried.",
            cure="Leave out the properties that have their defaults.",
        )
    parameters: dict[str, str] = {}
    properties: dict[str, str] = {}
    remarks: list[str] = []
    for word in _words(_unwrapped(text)):
        if word.startswith("/"):
            name, _, value = word[1:].partition(":")
            _take_parameter(name, value, parameters, remarks)
        else:
            name, equals, value = word.partition("=")
            if not equals:
                raise BadCommandLine(
                    f"{word!r} is neither a /parameter nor a PROPERTY=value.",
                    cure="Copy the command line from the co-management properties of the site.",
                )
            _take_property(name.upper(), value, properties, remarks)
    if "uninstall" in parameters:
        return CommandLine("", "", parameters, properties, remarks)
    return CommandLine(_host(properties), _site_code(properties), parameters, properties, remarks)


def masked(text: str) -> str:
    """For logs and reports: without the registration token."""
    return _REGTOKEN.sub(r"\g<name>*** ", text)


def kept(text: str) -> str:
    """For what lies on the disk: as if there had been no registration token."""
    return _REGTOKEN.sub("", text)


def _unwrapped(text: str) -> str:
    found = _WRAPPED.search(text)
    if found is None:
        return text
    return found["quoted"] if found["quoted"] is not None else found["bare"]


def _words(text: str) -> Iterator[str]:
    """Words at white space; double quotes keep a value together."""
    word, quoted, seen = "", False, False
    for character in text.strip():
        if character == '"':
            quoted, seen = not quoted, True
        elif character.isspace() and not quoted:
            if word or seen:
                yield word
            word, seen = "", False
        else:
            word += character
    if quoted:
        raise BadCommandLine("A quotation mark is not closed.", cure="Close it.")
    if word or seen:
        yield word


def _take_parameter(name: str, value: str, parameters: dict[str, str], remarks: list[str]) -> None:
    key = name.lower()
    if key in _REFUSED_PARAMETERS:
        raise BadCommandLine(
            f"/{name} cannot be used: {_REFUSED_PARAMETERS[key]}.",
            cure=f"Leave /{name} out.",
        )
    if key in _USED_PARAMETERS:
        if key in ("retry", "downloadtimeout") and not _is_minutes(value):
            raise BadCommandLine(
                f"/{name}:{value} is not a number of minutes.", cure=f"Write /{name}:10, say."
            )
        if key == "regtoken" and not value:
            raise BadCommandLine(
                "/regtoken has no token.",
                cure="Write /regtoken:<token>, as `tandem bulk-registration-token new` shows it.",
            )
        parameters[key] = value
    elif key in _KNOWN_PARAMETERS:
        remarks.append(f"/{name} changes nothing here: {_KNOWN_PARAMETERS[key]}.")
    else:
        raise BadCommandLine(
            f"/{name} is not a parameter of ccmsetup.",
            cure="Check its spelling; parameters take `:`, properties take `=`.",
        )


def _is_minutes(value: str) -> bool:
    return value.isascii() and value.isdigit() and 0 < int(value) <= 10_080


def _take_property(name: str, value: str, properties: dict[str, str], remarks: list[str]) -> None:
    if name in _REFUSED_PROPERTIES:
        raise BadCommandLine(
            f"{name} cannot be used: {_REFUSED_PROPERTIES[name]}.", cure=f"Leave {name} out."
        )
    if name in _USED_PROPERTIES:
        if name in _NUMBERS and not (value.isascii() and value.isdigit() and len(value) < 10):
            raise BadCommandLine(
                f"{name}={value} is not a number.",
                cure=f"Write {name}={_NUMBERS[name]}, or leave it out.",
            )
        properties[name] = value
    elif name in _KNOWN_PROPERTIES:
        remarks.append(f"{name} changes nothing here.")
    else:
        # The product hands properties it does not know on to client.msi, which ignores them.
        remarks.append(f"{name} is not a property that this client knows. It is ignored.")


def _host(properties: dict[str, str]) -> str:
    host = properties.get("CCMHOSTNAME", "")
    if not host:
        raise BadCommandLine(
            "CCMHOSTNAME is missing, so there is no management point to install from.",
            cure="Copy the command line from the co-management properties of the site.",
        )
    if "://" in host:
        raise BadCommandLine(
            f"CCMHOSTNAME={host} has a scheme, and takes none.",
            cure=f"Write CCMHOSTNAME={host.split('://', 1)[1]}.",
        )
    try:
        ccm.authentication_bases(host)
    except ValueError:
        raise BadCommandLine(
            f"CCMHOSTNAME={host} is not `<service name>/CCM_Proxy_MutualAuth/<decimal id>`.",
            cure="Copy the command line from the co-management properties of the site.",
        ) from None
    return host


def _site_code(properties: dict[str, str]) -> str:
    code = properties.get("SMSSITECODE", "").upper()
    if code == "AUTO":
        raise BadCommandLine(
            "SMSSITECODE=AUTO finds no site from the internet.",
            cure="Name the site: SMSSITECODE= and its three characters.",
        )
    if not _SITE_CODE.match(code):
        raise BadCommandLine(
            f"SMSSITECODE={code} is not a site code of three characters."
            if code
            else "SMSSITECODE is missing.",
            cure="Name the site: SMSSITECODE= and its three characters.",
        )
    return code
