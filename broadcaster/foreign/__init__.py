"""Settings of other servers, Reverb and soketi: honoured, ignored or refused."""
