"""The cloud side: directory, licences, sign-in, the MDM service and Graph in front of all of it."""
