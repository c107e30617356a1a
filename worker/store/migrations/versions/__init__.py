"""One module per revision, oldest first. None ever changes once it was released."""
