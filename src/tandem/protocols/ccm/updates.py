"""Software updates: what a client asks the software update point for, and what it says of it.

    GET  SMS_MP/.sms_aut?SUPLIST         where software update points are
    GET  SMS_SUP/.sms_upd                what is approved for this client, signed; 304 to an ETag
    agent → ccm_incoming                 topic 500 what was detected, 402 what installing came to,
                                         501 how the scan went; each when it is news

A path and a document of our own: the wire between WSUS and Windows is not spoken here. Topics and
states are the field's.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

DETECTION_TOPIC, ENFORCEMENT_TOPIC, SCAN_TOPIC = 500, 402, 501
# Of DETECTION_TOPIC.
NOT_REQUIRED, REQUIRED, INSTALLED = 1, 2, 3
# Of ENFORCEMENT_TOPIC.
INSTALL_FAILED = 11
# Of SCAN_TOPIC.
SCAN_COMPLETED, SCAN_FAILED = 3, 5
# Of one message; more go into the next.
FACTS_LIMIT = 200
# Of one list (spec 3.5: updates of a deployment).
LIST_LIMIT = 1000

_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f-]{1,64}$")]
_Text = Annotated[str, msgspec.Meta(max_length=512, pattern=r"^[^\x00]*$")]
_Word = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00]*$")]


class UpdatePoint(msgspec.Struct, frozen=True):
    """`host` is "service/CCM_Proxy_MutualAuth/id" for the internet, a URL for the intranet."""

    host: str
    kind: Literal["Internet", "Intranet"]


class UpdatePointList(msgspec.Struct, frozen=True):
    site_code: str
    update_points: list[UpdatePoint]


class ApprovedUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """An update of a package: it is there from `fixed_version` on. `source`: the package is a source
    package, and all that is installed of it counts. `release` is the code name of the system's
    release that it is for; empty for all. Without a deadline nothing is installed. Its content is at
    `url`; without one it comes from the archives that the device has."""

    id: _Id
    name: str
    package: str
    fixed_version: str
    source: bool = False
    release: str = ""
    classification: str = ""
    severity: str = ""
    article: str = ""
    deadline: datetime | None = None
    url: str = ""
    sha256: str = ""


class UpdateList(msgspec.Struct, frozen=True):
    """What is approved for one client. Signed; of no use to another, nor after `expires_at`."""

    client_id: str
    issued_at: datetime
    expires_at: datetime
    updates: list[ApprovedUpdate]


class UpdateFact(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an update stands: the version that is installed, and what went wrong, if it did."""

    version: _Word = ""
    code: _Word = ""
    text: _Text = ""


class UpdateFacts(msgspec.Struct, frozen=True):
    """`data` of topics 500 and 402: by the update's id. Reports of a series count up, so that an old
    one that comes late changes nothing."""

    updates: Annotated[dict[_Id, UpdateFact], msgspec.Meta(max_length=FACTS_LIMIT)]
    series: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{0,32}$")] = ""
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


class ScanResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """`data` of topic 501. `installs`: whether this client installs what is due; `text` says why not,
    or what went wrong."""

    installs: bool = False
    code: _Word = ""
    text: _Text = ""
    series: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{0,32}$")] = ""
    number: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
