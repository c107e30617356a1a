"""One reply, from the model to the fenced log."""
