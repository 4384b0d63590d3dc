"""Alerts, judged again from the events themselves: whoever stopped a program's detector has not silenced this."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from kakoi.cli.i18n import catalogue, language, t
from kakoi.cli.ui import plain
from kakoi.core import encoding
from kakoi.guard.sigma.engine import Engine
from kakoi.guard.sigma.rules import AnyRule, RuleSet
from kakoi.guard.stream import Stream


def judged_again(stream: Stream, rules: RuleSet) -> list[dict[str, Any]]:
    """Findings over the whole stream, oldest first."""
    engine, found = Engine(rules), []
    for _, line in stream.everything():
        event = encoding.loads(line)
        if event["metadata"]["event_code"] == "guard.alert":
            continue
        at = event.get("end_time", event["time"]) // 1000
        found += [
            {
                "time": at,
                "rule": finding.rule,
                "title": finding.title,
                "level": finding.level,
                "first": finding.first,
                "last": finding.last,
                "events": finding.events,
            }
            for finding in engine.hear(event)
        ]
    return found


def rule_title(rule: str, title: str) -> str:
    """A rule's title in the user's language; a party's own rules speak as they are written."""
    return catalogue(language()).get(f"alerts.rule.{rule}", title)


def rule_table(rules: RuleSet) -> Table:
    """Every rule that alerts."""
    table = Table(box=None, pad_edge=False)
    for heading in ("level", "rule", "id"):
        table.add_column(t(f"alerts.column.{heading}"), overflow="fold", no_wrap=heading == "id")
    everything: list[AnyRule] = [*rules.rules, *rules.correlations]
    for rule in sorted(everything, key=lambda rule: rule.title):
        if rule.id in rules.alerting:
            table.add_row(t(f"alerts.level.{rule.level}"), plain(rule_title(rule.id, rule.title)), rule.id)
    return table
