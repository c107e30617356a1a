"""``legato bench hostile``: measures the harm of one hostile client to all others."""
