"""One client, whatever its transport: admission, its commands in order, liveness, drain."""
