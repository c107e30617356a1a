"""How Legato runs: the command line, `legato up`, process supervision."""
