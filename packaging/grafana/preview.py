#!/usr/bin/env python3
"""Writes a page that draws the dashboard from a Prometheus, for a look at it without Grafana.

    packaging/grafana/preview.py http://127.0.0.1:9090 MINUTES >page.html

The queries are those of the dashboard, with everything chosen. It needs no script in the browser.
"""

import html
import json
import pathlib
import sys
import time
import urllib.parse
import urllib.request

DASHBOARD = pathlib.Path(__file__).parent.parent / "helm/kata-runtime-monitor/files/dashboard.json"
VARIABLES = {"$job": "kata-runtime-monitor", "$instance": ".*", "$namespace": ".*", "$pod": ".*", "$__rate_interval": "20s"}
COLOURS = ["#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300"]
WIDTH, HEIGHT = 560, 150


def ask(server, path, **parameters):
    with urllib.request.urlopen(f"{server}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
        return json.load(answer)["data"]["result"]


def filled_in(query):
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


def shown(value, unit):
    value = value or 0  # not -0
    if unit in ("bytes", "Bps"):
        for suffix in ["B", "KiB", "MiB"]:
            if abs(value) < 1024:
                break
            value, suffix = value / 1024, "GiB"
        return f"{value:.4g} {suffix}" + ("/s" if unit == "Bps" else "")
    return f"{value:.1%}" if unit == "percentunit" else f"{value:.3g}" + {"s": " s", "pps": " p/s"}.get(unit, "")


def legend(template, labels):
    for key, value in labels.items():
        template = template.replace("{{" + key + "}}", value)
    return template or ", ".join(labels.values())


def graph(server, panel, start, end):
    unit, drawn = panel["fieldConfig"]["defaults"]["unit"], []
    for target in panel["targets"]:
        series = ask(server, "query_range", query=filled_in(target["expr"]), start=start, end=end, step=2)
        drawn += [(legend(target["legendFormat"], one["metric"]),
                   [(float(at), float(value)) for at, value in one["values"] if value not in ("NaN", "+Inf", "-Inf")])
                  for one in series]
    values = [value for _, points in drawn for _, value in points] or [0]
    low, high = min(0, *values), max(0, *values)
    high = high if high > low else low + 1
    place = lambda at, value: (f"{(at - start) / (end - start) * WIDTH:.1f},"
                               f"{HEIGHT - (value - low) / (high - low) * HEIGHT:.1f}")
    lines = "".join(
        f'<polyline fill="none" stroke-width="1.5" stroke="{COLOURS[place_ % len(COLOURS)]}" '
        f'points="{" ".join(place(at, value) for at, value in points)}"/>'
        for place_, (_, points) in enumerate(drawn))
    keys = "".join(
        f'<span><i style="background:{COLOURS[place_ % len(COLOURS)]}"></i>{html.escape(name)}: {shown(points[-1][1], unit)}</span>'
        for place_, (name, points) in enumerate(drawn) if points)
    return (f'<svg viewBox="-70 -8 {WIDTH + 80} {HEIGHT + 16}"><rect width="{WIDTH}" height="{HEIGHT}" fill="#181b1f"/>'
            f'<text x="-6" y="6">{shown(high, unit)}</text><text x="-6" y="{HEIGHT}">{shown(low, unit)}</text>{lines}</svg>'
            f'<p class="keys">{keys}</p>')


def stat(server, panel):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    result = ask(server, "query", query=filled_in(panel["targets"][0]["expr"]))
    return f'<p class="stat">{shown(float(result[0]["value"][1]), unit) if result else "No data"}</p>'


def table(server, panel):
    headings = [override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]]
    units = [override["properties"][0]["value"] for override in panel["fieldConfig"]["overrides"]]
    rows = {}
    for column, target in enumerate(panel["targets"]):
        for one in ask(server, "query", query=filled_in(target["expr"])):
            key = (one["metric"].get("namespace", ""), one["metric"].get("pod", ""))
            rows.setdefault(key, {})[column] = float(one["value"][1])
    cells = lambda row: "".join(
        f'<td>{shown(row[column], unit) if column in row else ""}</td>' for column, unit in enumerate(units))
    return ('<table><tr><th>namespace<th>pod' + "".join(f"<th>{html.escape(one)}" for one in headings) + "</tr>" + "".join(
        f"<tr><td>{html.escape(key[0])}<td>{html.escape(key[1])}{cells(row)}</tr>" for key, row in sorted(rows.items())) + "</table>")


def main(server, minutes):
    end = time.time()
    start = end - float(minutes) * 60
    dashboard = json.loads(DASHBOARD.read_text())
    body = []
    for panel in dashboard["panels"]:
        title = html.escape(panel["title"])
        if panel["type"] == "row":
            body.append(f"<h2>{title}</h2>")
            continue
        inner = {"timeseries": lambda: graph(server, panel, start, end), "stat": lambda: stat(server, panel),
                 "table": lambda: table(server, panel)}[panel["type"]]()
        wide = panel["gridPos"]["w"] // 12
        body.append(f'<section style="grid-column: span {wide}"><h3>{title}</h3>{inner}</section>')
    print(f"""<!doctype html><meta charset="utf-8"><title>{html.escape(dashboard["title"])}</title><style>
body {{ background: #111217; color: #ccccdc; font: 13px "DejaVu Sans", sans-serif; margin: 16px; width: 1368px }}
main {{ display: grid; grid-template-columns: 1fr 1fr; gap: 8px }} h2 {{ grid-column: span 2; margin: 8px 0 0 }}
section {{ background: #181b1f; border: 1px solid #2a2d33; padding: 8px; min-width: 0 }} h3 {{ margin: 0 0 6px; font-size: 13px }}
svg {{ width: 100% }} text {{ fill: #9fa1a8; font-size: 11px; text-anchor: end }} .keys {{ margin: 4px 0 0; font-size: 11px }}
.keys span {{ margin-right: 12px }} i {{ display: inline-block; width: 10px; height: 4px; margin: 0 4px 3px 0 }}
.stat {{ font-size: 40px; margin: 24px; color: #73bf69 }} table {{ width: 100%; border-collapse: collapse }}
td, th {{ text-align: left; padding: 4px 8px; border-top: 1px solid #2a2d33 }}</style>
<h1>{html.escape(dashboard["title"])}</h1><main>{"".join(body)}</main>""")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
