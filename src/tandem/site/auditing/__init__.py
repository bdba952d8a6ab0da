"""The site's audit log as administrators read it, and its proof: signed heads, an export, a check.

Owns the table auditing_verification; the log itself is `tandem.audit`'s.
"""

from tandem.site.auditing.http import routes
from tandem.site.auditing.model import Filter, Verification
from tandem.site.auditing.service import last_verification, sign, verify

__all__ = ["Filter", "Verification", "last_verification", "routes", "sign", "verify"]
