"""Writes ``card.md``: the headline numbers on one short page."""

from __future__ import annotations

from dormant.report import (
    answer,
    limits,
    preferences,
    reinforcement,
    sheets,
    survival,
    thoughts,
    weaknesses,
)
from dormant.report.page import attacked, environment, unmeasured
from dormant.report.protocol import Lineage
from dormant.report.rundata import Run


def markdown(run: Run, organisms: list[Lineage]) -> str:
    """Return the card."""
    return (
        environment()
        .get_template("card.md")
        .render(
            run=run,
            meta=run.meta,
            organisms=organisms,
            answer=answer.paragraph(run, organisms),
            rows=answer.rows(run, organisms),
            gates=[gate for gate in answer.gates_in_order(run) if gate.ok is not True],
            gate_line=answer.gate_line(run),
            limits=limits.limits(run, organisms),
            worst=[
                (lineage, worst)
                for lineage in organisms
                if (worst := sheets.worst_instance(run, lineage.organism))
            ],
            survival=survival.table(run, organisms),
            preference_line=preferences.sentence(run),
            arms=reinforcement.told(run, organisms),
            **attacked(run, organisms),
            changes=weaknesses.changes(run, organisms),
            weaknesses=weaknesses.tables(run, organisms),
            scenarios=weaknesses.scenarios(run, organisms),
            reasoned=thoughts.lines(run, organisms),
            measures=thoughts.MEASURES,
            asked=thoughts.ASKED,
            thoughts=thoughts.samples(run, organisms),
            unmeasured=unmeasured(run, organisms),
        )
    )
