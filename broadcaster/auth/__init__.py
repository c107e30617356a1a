"""Authentication of requests, and authorisation of channels."""
