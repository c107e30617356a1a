"""``legato bench``: loads any Pusher server and reports how it performs."""
