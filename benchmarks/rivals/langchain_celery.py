"""Celery around LangChain's `with_fallbacks` as it comes: its models repeat a failed call twice."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.given import Given
from benchmarks.rivals.langchain_models import asking

given = Given.read()
app = app_for(given, asking(given))
