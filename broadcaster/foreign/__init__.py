"""Settings of other servers (Reverb and soketi), which are honoured, ignored or refused."""
