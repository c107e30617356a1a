"""The least project around `views.py`: settings, addresses, the application, and commands.

```sh
python project.py migrate
uvicorn project:application --port 3000
```
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.urls import include, path, re_path

PAGE = Path(os.environ.get("CHAT_PAGE", "../article/dist"))
DATABASE = os.environ.get("DATABASE", "db.sqlite3")

settings.configure(
    DEBUG=True,  # serves files below /build/
    SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [PAGE]}],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    # What the chat needs. Echo sends the CSRF token under Laravel's name.
    CSRF_HEADER_NAME="HTTP_X_CSRF_TOKEN",
    REDIS_URL=os.environ["REDIS_URL"],
    REVERB_APP_ID=os.environ.get("REVERB_APP_ID", "1"),
    REVERB_APP_KEY=os.environ.get("REVERB_APP_KEY", "app-key"),
    REVERB_APP_SECRET=os.environ.get("REVERB_APP_SECRET", "app-secret"),
    LEGATO_JWT_SECRET=os.environ["LEGATO_AUTH_JWT_SECRET"],
)
django.setup()

from django.contrib.auth import get_user_model, login  # noqa: E402 - they need the settings
from django.shortcuts import redirect  # noqa: E402
from django.views.static import serve  # noqa: E402


def sign_in(request, user):  # noqa: ANN001, ANN201
    """For development only: anybody is signed in as anybody. Your project asks for a password."""
    login(request, get_user_model().objects.get_or_create(pk=user, username=f"user{user}")[0])
    return redirect("/")


urlpatterns = [
    path("login/<int:user>", sign_in),
    path("", include("views")),
    re_path("^build/(?P<path>.*)$", serve, {"document_root": PAGE}),
]
application = get_asgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
