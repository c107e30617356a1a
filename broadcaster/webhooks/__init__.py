"""Webhooks: what is told to an application, and sending it."""
