"""What Alembic runs. :mod:`legato.worker.store.revisions` starts it."""
