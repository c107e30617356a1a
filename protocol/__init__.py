"""The rules that broadcaster and worker share: no I/O, no clock, no randomness."""
