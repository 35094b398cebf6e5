"""Bare Celery around the official SDK: `celery -A benchmarks.rivals.sdk_celery worker`."""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.experiment import Experiment
from benchmarks.rivals.sdk import asking

experiment = Experiment.read()
app = app_for(experiment, asking(experiment))
