"""What ``/metrics`` says."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, tuple[str, ...]], float]


def read_samples(text: str) -> Samples:
    """Every sample by its name and the sorted values of its labels; each is there once, and says what it is."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in {"gauge", "counter", "histogram"}
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.values())))
            assert key not in found, "counted twice"
            found[key] = sample.value
    return found


def by_label(samples: Samples, name: str) -> dict[str, float]:
    """The values of a metric with one label, where they are not 0."""
    return {labels[0]: value for (of, labels), value in samples.items() if of == name and value}
