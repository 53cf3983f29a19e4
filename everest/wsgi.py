"""What gunicorn serves: `gunicorn --threads 8 everest.wsgi`."""

import gc
import os
from importlib import import_module

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "everest.settings")
application = get_wsgi_application()

# What is loaded by now stays: a collection that walked through it would hold a page up for 20 ms or more.
import_module("everest.urls")
gc.collect()
gc.freeze()
