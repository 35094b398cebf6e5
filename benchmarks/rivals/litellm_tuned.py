"""
Celery around LiteLLM's Router, tuned for a chain of single deployments.

`allowed_fails` and `cooldown_time` make it bench a deployment that is alone in its group, which the
defaults do not do before 1,000 failures a minute; `num_retries=0` goes to the fallback at once, not
back to who has just failed.
"""

from benchmarks.rivals.celery_app import app_for
from benchmarks.rivals.given import Given
from benchmarks.rivals.litellm_router import asking

given = Given.read()
app = app_for(given, asking(given, allowed_fails=1, cooldown_time=30, num_retries=0))
