"""`/metrics` as a Prometheus reads it."""

import urllib.request
from collections import defaultdict

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]
"""By name, by labels, the value."""


class Scrape:
    """
    One answer of `/metrics`.

    Args:
        text: In the classic format.
    """

    def __init__(self, text: str) -> None:
        self.families = list(classic(text))
        self._samples: Samples = defaultdict(dict)
        for family in self.families:
            for sample in family.samples:
                labels = frozenset(sample.labels.items())
                assert labels not in self._samples[sample.name], f"twice: {sample}"
                self._samples[sample.name][labels] = sample.value

    def sum(self, name: str, **labels: str) -> float:
        """Add up the series of a name that have these labels; 0 if there are none."""
        return sum(
            value
            for known, value in self._samples.get(name, {}).items()
            if labels.items() <= dict(known).items()
        )

    def has(self, name: str) -> bool:
        """Tell whether there is any series of this name."""
        return name in self._samples


def scrape(port: int, *, strict: bool = False) -> Scrape:
    """
    Ask for the metrics.

    Args:
        strict: Have them in OpenMetrics' format too, whose parser takes exception to more.
    """
    url = f"http://127.0.0.1:{port}/metrics"
    if strict:
        kind = "application/openmetrics-text; version=1.0.0"
        request = urllib.request.Request(url, headers={"Accept": kind})
        with urllib.request.urlopen(request, timeout=180) as answer:
            assert list(openmetrics(answer.read().decode()))
    with urllib.request.urlopen(url, timeout=180) as answer:
        return Scrape(answer.read().decode())


def scrape_if_served(port: int) -> Scrape | None:
    """Ask for the metrics; None while nobody has the port."""
    try:
        return scrape(port)
    except OSError:
        return None
