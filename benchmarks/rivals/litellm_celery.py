"""Celery around LiteLLM's Router, as it comes."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.experiment import Experiment
from benchmarks.rivals.litellm_router import asking

experiment = Experiment.read()
app = app_for(experiment, asking(experiment))
