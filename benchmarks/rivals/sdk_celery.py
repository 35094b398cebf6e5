"""Bare Celery around the official SDK: `celery -A benchmarks.rivals.sdk_celery worker`."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.given import Given
from benchmarks.rivals.sdk import asking

given = Given.read()
app = app_for(given, asking(given))
