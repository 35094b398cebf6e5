"""
Celery around LiteLLM's Router, tuned for a chain of single deployments.

`allowed_fails` and `cooldown_time` make it bench a deployment that is alone in its group, which the
defaults do not do before 1,000 failures a minute; `num_retries=0` goes to the fallback at once, not
back to who has just failed.
"""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.experiment import Experiment
from benchmarks.rivals.litellm_router import asking

experiment = Experiment.read()
app = app_for(experiment, asking(experiment, allowed_fails=1, cooldown_time=30, num_retries=0))
