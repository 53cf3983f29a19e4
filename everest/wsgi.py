"""What gunicorn serves: `gunicorn --threads 8 everest.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "everest.settings")
application = get_wsgi_application()
