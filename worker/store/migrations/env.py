"""How Alembic runs the revisions: on the connection it is given, in the transaction that is open there."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
)
context.run_migrations()
