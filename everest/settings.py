"""Everest's settings; every EVEREST_* name may be set in the environment."""

from pathlib import Path

from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.core.management.utils import get_random_secret_key

from everest import env

BASE_DIR = Path(__file__).resolve().parent.parent

# Where the embedded metadata, generated keys and worker records live.
EVEREST_DATA = Path(env.text("EVEREST_DATA") or BASE_DIR / "data").resolve()
EVEREST_DATA.mkdir(mode=0o700, parents=True, exist_ok=True)

DEBUG = env.flag("EVEREST_DEBUG", False)
# Signs sessions and the broker's messages; nothing is encrypted with it.
SECRET_KEY = env.kept("EVEREST_SIGNING_KEY", EVEREST_DATA / "signing.key", get_random_secret_key)
# Stored credentials: the first key encrypts, all decrypt (everest/secrets.py).
EVEREST_SECRET_KEYS = [
    key.strip()
    for key in env.kept("EVEREST_SECRET_KEYS", EVEREST_DATA / "secret.keys", lambda: Fernet.generate_key().decode())
    .replace("\n", ",")
    .split(",")
    if key.strip()
]
for _key in EVEREST_SECRET_KEYS:
    try:
        Fernet(_key)
    except ValueError:
        raise ImproperlyConfigured(
            "EVEREST_SECRET_KEYS holds a value that is not a key. A key is 32 random bytes in URL-safe base64."
        ) from None

# Local-folder storages are only allowed below this folder.
EVEREST_LOCAL_ROOT = Path(env.text("EVEREST_LOCAL_ROOT") or EVEREST_DATA / "storages").resolve()

# Seconds.
EVEREST_TICK_SECONDS = env.number("EVEREST_TICK_SECONDS", 20, 0.2)
EVEREST_LEASE_SECONDS = env.number("EVEREST_LEASE_SECONDS", 60, 1)
EVEREST_RING_AGAIN_SECONDS = env.number("EVEREST_RING_AGAIN_SECONDS", 60, 0.5)
EVEREST_SHIP_SECONDS = env.number("EVEREST_SHIP_SECONDS", 60, 0.5)
EVEREST_CHECK_SECONDS = env.number("EVEREST_CHECK_SECONDS", 300, 1)
EVEREST_STOP_SECONDS = env.number("EVEREST_STOP_SECONDS", 30, 1)
EVEREST_SILENCE_SECONDS = env.number("EVEREST_SILENCE_SECONDS", 60, 1)
EVEREST_HEALTH_SECONDS = env.number("EVEREST_HEALTH_SECONDS", 180, 1)
EVEREST_VERIFY_DAYS = env.number("EVEREST_VERIFY_DAYS", 7, 0)
EVEREST_VERIFY_SAMPLE = env.number("EVEREST_VERIFY_SAMPLE", 1, 1)
EVEREST_KEEP_JOBS_DAYS = env.number("EVEREST_KEEP_JOBS_DAYS", 90, 1)
# Databases that one ship run serves at most.
EVEREST_SHIP_DATABASES = int(env.number("EVEREST_SHIP_DATABASES", 50, 1))

ALLOWED_HOSTS = env.words("EVEREST_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("EVEREST_ORIGINS")
EVEREST_HTTPS = env.flag("EVEREST_HTTPS", True)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = EVEREST_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31_536_000 if EVEREST_HTTPS else 0
X_FRAME_OPTIONS = "DENY"
EVEREST_BEHIND_PROXY = env.flag("EVEREST_BEHIND_PROXY", False)
if EVEREST_BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

INSTALLED_APPS = [
    "everest",
    "storages",
    "backups",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_q",
    "crispy_forms",
    "crispy_bootstrap5",
    "django_htmx",
]

MIDDLEWARE = [
    "everest.middleware.PolicyMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "everest.middleware.PersonMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "everest.urls"
WSGI_APPLICATION = "everest.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "everest.people.context",
            ],
        },
    }
]
CRISPY_ALLOWED_TEMPLATE_PACKS = CRISPY_TEMPLATE_PACK = "bootstrap5"

DATABASES = {"default": env.database("EVEREST_DATABASE", EVEREST_DATA / "everest.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "everest.User"
LOGIN_URL = LOGOUT_REDIRECT_URL = "sign-in"
LOGIN_REDIRECT_URL = "databases"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-gb"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATIC_ROOT = None  # whitenoise serves what the finders find
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # no collectstatic step

# django-q2 carries doorbells only (backups/queue.py), so: nothing saved, no scheduler of its own, no retries of its
# own that matter, and hardly any prefetch, as a prefetched doorbell is locked away from other machines.
# `timeout` only silences its warning: every doorbell is rung with timeout=-1.
Q_CLUSTER = {
    "name": "everest",
    "orm": "default",
    "timeout": 3600,
    "retry": 3660,
    "workers": 2,
    "queue_limit": 1,
    "poll": 0.25,
    "guard_cycle": 1,
    "save_limit": -1,
    "ack_failures": True,
    "scheduler": False,
    "catch_up": False,
    "log_level": "WARNING",
    "recycle": 200,
    "label": "Doorbells",
    "ALT_CLUSTERS": {
        # A ship run and its successor may hold two workers of the short queue, so at least three.
        "short": {"workers": int(env.number("EVEREST_SHORT_WORKERS", 3, 3))},
        "long": {"workers": int(env.number("EVEREST_LONG_WORKERS", 2, 1))},
        "restore": {"workers": int(env.number("EVEREST_RESTORE_WORKERS", 1, 1))},
    },
}
if _redis := env.text("EVEREST_REDIS"):
    Q_CLUSTER = {**Q_CLUSTER, "orm": None, "redis": _redis}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "everest": {"level": env.text("EVEREST_LOG_LEVEL", "INFO").upper()},
        "django-q": {"level": "WARNING"},
        # Their debug lines show requests, and so credentials.
        "botocore": {"level": "WARNING"},
        "boto3": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},
    },
}
