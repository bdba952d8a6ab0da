"""Tandem: co-management of devices by a cloud MDM service and an on-premises site."""

__version__ = "0.1.0"
