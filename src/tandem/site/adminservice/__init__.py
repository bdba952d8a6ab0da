"""AdminService: OData reads for scripts, by the field's names. Owns no table."""

from tandem.site.adminservice.http import routes

__all__ = ["routes"]
