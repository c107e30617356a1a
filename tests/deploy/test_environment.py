"""What a child gets to see."""

from __future__ import annotations

from legato.deploy.environment import of_child

ENVIRON = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "HTTPS_PROXY": "http://proxy",
    "ANTHROPIC_API_KEY": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "DATABASE_URL": "postgres://:secret@db/x",
    "LEGATO_PROVIDER_API_KEY": "secret",
    "LEGATO_PROVIDER_SYSTEM": "Be brief.",
    "LEGATO_SERVER_MAX_CONNECTIONS": "5",
    "LEGATO_LOG_LEVEL": "debug",
    "LEGATO_REDIS_URL": "redis://other",
}


def test_the_broadcaster_sees_its_own_settings_and_nobody_elses_secrets() -> None:
    got = of_child("broadcaster", ENVIRON, {"LEGATO_REDIS_URL": "redis://this"})
    assert "secret" not in str(got)
    assert got == {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "HTTPS_PROXY": "http://proxy",
        "LEGATO_SERVER_MAX_CONNECTIONS": "5",
        "LEGATO_LOG_LEVEL": "debug",
        "LEGATO_REDIS_URL": "redis://this",
        "PYTHONUNBUFFERED": "1",
    }


def test_the_worker_sees_its_provider_and_its_database_but_no_other_secret() -> None:
    got = of_child("worker", ENVIRON, {})
    assert got["LEGATO_PROVIDER_SYSTEM"] == "Be brief."
    assert "LEGATO_SERVER_MAX_CONNECTIONS" not in got
    assert "AWS_SECRET_ACCESS_KEY" not in got


def test_a_worker_with_guests_sees_all_but_the_settings_of_others() -> None:
    got = of_child("worker", ENVIRON | {"LEGATO_AUTH_JWT_SECRET": "hush"}, {}, guests=True)
    assert got["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert not {"ANTHROPIC_API_KEY", "DATABASE_URL", "LEGATO_AUTH_JWT_SECRET"} & got.keys()


def test_both_get_what_the_postgresql_driver_reads_by_itself() -> None:
    environ = {"PGSSLROOTCERT": "ca.pem"}
    for kind in ("broadcaster", "worker"):
        assert environ.items() <= of_child(kind, environ, {}).items()
