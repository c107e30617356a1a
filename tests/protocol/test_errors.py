import pytest

from legato.protocol.errors import ERRORS, Reconnect

RANGES = {  # section 9: what pusher-js and the other clients do with a close code
    Reconnect.NEVER: lambda code: 4000 <= code < 4100,
    Reconnect.BACK_OFF: lambda code: 4100 <= code < 4200 or 1000 <= code < 1016,
    Reconnect.AT_ONCE: lambda code: 4200 <= code < 4300,
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.code))
def test_the_code_makes_the_client_do_what_the_table_says(error):
    assert RANGES[error.reconnect](error.code)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.code))
def test_the_message_fits_into_a_close_frame(error):
    assert 0 < len(error.message.encode()) <= 123
