from hypothesis import given
from hypothesis import strategies as st

from legato.protocol.token_bucket import TokenBucket


@given(st.lists(st.floats(0, 5), min_size=1, max_size=100))
def test_a_bucket_never_lets_more_through_than_its_rate_and_one_burst(pauses):
    bucket, now, passed = TokenBucket(10, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now)
    assert passed <= 10 + 10 * now + 1e-6


def test_a_bucket_is_full_again_after_a_pause():
    bucket = TokenBucket(2, 0.0, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5) for _ in range(2)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
