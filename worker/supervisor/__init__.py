"""How a worker process is seen and directed."""
