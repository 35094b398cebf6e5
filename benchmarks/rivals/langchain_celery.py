"""Celery around LangChain's `with_fallbacks` as it comes: its models repeat a failed call twice."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.experiment import Experiment
from benchmarks.rivals.langchain_models import asking

experiment = Experiment.read()
app = app_for(experiment, asking(experiment))
