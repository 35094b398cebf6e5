"""Celery around LiteLLM's Router, as it comes."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.given import Given
from benchmarks.rivals.litellm_router import asking

given = Given.read()
app = app_for(given, asking(given))
