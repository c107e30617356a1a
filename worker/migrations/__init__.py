"""What Alembic runs. :mod:`worker.revisions` starts it."""
