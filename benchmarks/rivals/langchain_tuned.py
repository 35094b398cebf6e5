"""Celery around LangChain's `with_fallbacks`, `max_retries=0`: the fallback comes at once."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.given import Given
from benchmarks.rivals.langchain_models import asking

given = Given.read()
app = app_for(given, asking(given, max_retries=0))
