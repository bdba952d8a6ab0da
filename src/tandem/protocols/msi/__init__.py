"""Windows Installer packages: what a package says about itself, and the files inside it.

A package is an OLE compound file [MS-CFB]. Its tables are streams whose names are packed two
characters into one; their cells are numbers of strings in a common pool:

    !_StringPool   code page, then (length, references) of each string
    !_StringData   the strings' bytes, one after the other
    !Property      column by column: numbers of the names, then numbers of the values
    !Media         which cabinet is embedded (`#name`), as a stream of that name
    !File          key of a file in the cabinet -> its name once installed

Nothing of the package is run, and no other program is needed. Everything may come from a stranger.
"""

from tandem.protocols.msi.cabinet import unpack
from tandem.protocols.msi.database import BadMsi, MsiProperties, PackageType, extract, read

__all__ = ["BadMsi", "MsiProperties", "PackageType", "extract", "read", "unpack"]
