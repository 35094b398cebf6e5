"""Celery around LangChain's `with_fallbacks`, `max_retries=0`: the fallback comes at once."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.experiment import Experiment
from benchmarks.rivals.langchain_models import asking

experiment = Experiment.read()
app = app_for(experiment, asking(experiment, max_retries=0))
