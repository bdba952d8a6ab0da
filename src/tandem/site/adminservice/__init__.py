"""AdminService: OData for scripts and other people's tools, under the field's names.

    GET  /AdminService/wmi/SMS_R_System?$filter=startswith(Name,'LAB-') eq true&$select=Name
    GET  /AdminService/wmi/SMS_Collection('SMS00001')
    POST /AdminService/wmi/SMS_Collection('CM100014')/AdminService.AddMembershipRule
    GET  /AdminService/v1.0/Device(16777216)

A class is one description (`model.Class`); paths, SQL, checks of bodies, answers and $metadata
follow from it. Owns no table: writes go through the modules that own theirs.
"""

from tandem.site.adminservice.http import gateway_routes, routes
from tandem.site.adminservice.model import Collaborators, NoSuchClass, NoSuchObject

__all__ = ["Collaborators", "NoSuchClass", "NoSuchObject", "gateway_routes", "routes"]
