"""The command line, `legato up`, and process supervision."""
