"""Devices side by side as a page: one self-contained file, without a script."""

from __future__ import annotations

from html import escape

from edgetl import shell
from edgetl.deploy.fleet.record import DeviceRecord, FleetRecord, Outcome
from edgetl.report.fleet import side_by_side, summary
from edgetl.report.page.markup import Column, Row, definitions, section, table, tag
from edgetl.report.page.theme import STYLE

_TAGS = {
    Outcome.DONE: "good",
    Outcome.FAILED: "bad",
    Outcome.REFUSED: "bad",
    Outcome.AWAY: "warn",
    Outcome.UNSURE: "warn",
}


def render(record: FleetRecord) -> str:
    """The record as one HTML document."""
    side = side_by_side(record)
    columns = [Column(header=head.text.replace("\n", " "), number=head.number) for head in side.heads]
    rows = [
        Row(cells=(cells[0], tag("span", cells[1], css=f"tag {_TAGS[device.outcome]}"), *cells[2:]))
        for cells, device in zip(side.rows, record.devices, strict=True)
    ]
    title = shell.command("fleet", record.command)
    others = [d for d in record.devices if d.outcome is not Outcome.DONE]
    says = (
        [tag("ul", *(tag("li", f"{d.device}: {d.sentence}") for d in others), css="says")] if others else []
    )
    machines = [(d.device, _machine(d)) for d in record.devices]
    about = [section("machines", "Machines", definitions(machines))] if any(m for _, m in machines) else []
    body = [
        tag("header", tag("p", title, css="kicker"), tag("h1", record.fleet)),
        tag(
            "main",
            section("devices", "Devices", table(columns, rows, "Devices"), *says, lead=summary(record)),
            *about,
        ),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(record.fleet)}: {escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _machine(device: DeviceRecord) -> str:
    found = device.bench or device.gate
    return found.machine.fingerprint if found is not None else ""
