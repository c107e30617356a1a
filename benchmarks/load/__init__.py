"""``legato bench``: load on any Pusher server, and a report of how it was borne."""
