"""AdminService: OData reads for scripts, under the field's names. Owns no table.

GET /AdminService/wmi/SMS_R_System?$filter=startswith(Name,'LAB-')&$select=Name,ResourceId
GET /AdminService/wmi/SMS_Collection('SMS00001')
GET /AdminService/v1.0/Device(16777216)
"""

from tandem.site.adminservice.http import routes
from tandem.site.adminservice.service import NoSuchClass, NoSuchObject

__all__ = ["NoSuchClass", "NoSuchObject", "routes"]
