"""Webhooks: which events an application is sent, and sending them."""
