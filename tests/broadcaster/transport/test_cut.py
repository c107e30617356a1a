from legato.broadcaster.log_limits import CUT_LOG_SECONDS
from legato.broadcaster.transport.cut import Cutter


class Connection:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        if self.error is not None:
            raise self.error


def test_all_are_cut_and_the_first_of_many_is_logged(caplog):
    now = 100.0
    cut = Cutter(lambda: now)
    connections = [Connection() for _ in range(4)]
    for connection in connections[:3]:
        cut(connection, "writing to it", RuntimeError())
    now += CUT_LOG_SECONDS
    cut(connections[3], "reading from it", RuntimeError())
    assert all(connection.aborted for connection in connections)
    assert [record.getMessage() for record in caplog.records] == [
        "a connection is cut: writing to it failed",
        "a connection is cut: reading from it failed; 2 more since the last such line",
    ]


def test_an_error_while_cutting_is_logged():
    Cutter()(Connection(OSError()), "writing to it", RuntimeError())
