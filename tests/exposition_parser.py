"""A strict reader of the Prometheus text format: what it takes, a scraper takes. It follows the format's own page, not
the code that writes it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')
_KINDS = {"counter", "gauge", "histogram"}
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
Labels = frozenset[tuple[str, str]]


@dataclass
class Family:
    kind: str
    about: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, name: str, **labels: str) -> float:
        """The one sample of this name with exactly these labels."""
        return self.samples[name, frozenset(labels.items())]

    def total(self, **labels: str) -> float:
        """The sum of the samples that have these labels, among others."""
        return sum(value for (_, told), value in self.samples.items() if labels.items() <= dict(told).items())


def parse(text: str) -> dict[str, Family]:
    """Families by name.

    Raises:
        AssertionError: the text is not of the format, a family comes in two places, a sample comes twice, or a
            histogram does not add up.
    """
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    lines = iter(text.splitlines())
    current = ""
    for line in lines:
        if line.startswith("# HELP "):
            _, _, current, about = line.split(" ", 3)
            kind = next(lines).split(" ")
            assert kind[:3] == ["#", "TYPE", current], f"no TYPE behind {line!r}"
            assert kind[3] in _KINDS
            assert re.fullmatch(_NAME, current)
            assert current not in families, f"{current} comes in two places"
            families[current] = Family(kind[3], about)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, f"not a sample: {line!r}"
        name, labels, value = match.groups()
        family = families[current]
        suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        assert name in {current + suffix for suffix in suffixes}, f"{name} is not of {current}"
        key = name, frozenset(_labels(labels or ""))
        assert key not in family.samples, f"{line!r} comes twice"
        family.samples[key] = float(value)
    for name, family in families.items():
        assert family.samples, f"{name} has no sample"
        if family.kind == "histogram":
            _check_histograms(name, family)
        if family.kind == "counter":
            assert all(value >= 0 for value in family.samples.values())
    return families


def _labels(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text):
        match = _LABEL.match(text, at)
        assert match, f"not labels: {text!r}"
        found.append((match[1], re.sub(r"\\[\\\"n]", lambda m: _ESCAPES[m[0]], match[2])))
        at = match.end()
        if at < len(text):
            assert text[at] == ",", f"not labels: {text!r}"
            at += 1
            assert at < len(text), f"a comma at the end: {text!r}"
    assert len({name for name, _ in found}) == len(found), f"a label comes twice: {text!r}"
    return found


def _check_histograms(name: str, family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            edge = float(dict(labels)["le"])
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            series.setdefault(rest, []).append((edge, value))
    for labels, buckets in series.items():
        edges, counts = zip(*sorted(buckets), strict=True)
        assert edges[-1] == math.inf
        assert list(counts) == sorted(counts), f"{name} {labels}: buckets are not cumulative"
        assert family.samples[f"{name}_count", labels] == counts[-1]
        assert (f"{name}_sum", labels) in family.samples
