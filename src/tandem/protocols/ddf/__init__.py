"""Device description framework, version 2: what nodes a device has, and what they take. No I/O.

    MgmtTree
      Node            NodeName, on top Path; DFProperties; Node …
        DFProperties  AccessType, DefaultValue, Description, DFFormat, Occurrence, Scope, DFTitle,
                      DFType; MSFT:Applicability, MSFT:AllowedValues, MSFT:Deprecated …

`read` takes the files that are published for Windows (OMA DM DDF 1.2 with the vendor's namespace)
and gives their leaves. Our own files add the workload of a subtree and names in other languages,
in a namespace of their own.
"""

from tandem.protocols.ddf.codec import read
from tandem.protocols.ddf.model import (
    ACTIONS,
    SETTABLE,
    Allowed,
    BadDdf,
    BadValue,
    Choice,
    Leaf,
    Tree,
    checked,
    runs_on,
)

__all__ = [
    "ACTIONS",
    "SETTABLE",
    "Allowed",
    "BadDdf",
    "BadValue",
    "Choice",
    "Leaf",
    "Tree",
    "checked",
    "read",
    "runs_on",
]
