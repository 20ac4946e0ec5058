"""What is printed: Markdown; where it was measured, the targets, then a table for each measurement."""

import os
import subprocess
from statistics import median

from book import short, spread
from options import MEASURES
from process import read
from targets import targets

TITLES = {
    "memory": "Resident memory", "keepalive": "Keep-alive, 1 KiB, 64 connections",
    "connections": "A new connection for each request, 32 at once", "paced": "One connection, 1,000 requests a second",
    "stream": "Bulk, one stream", "streams": "Bulk, four streams", "names": "DNS, 1,000 names"}
COLUMNS = {
    "rate": "per s", "gib": "GiB/s", "p50": "p50 ms", "p99": "p99 ms", "p999": "p99.9 ms", "cpu": "proxy CPU µs each",
    "machine": "machine CPU µs each", "cpu_gib": "proxy CPU s per GiB", "machine_gib": "machine CPU s per GiB",
    "cpu_million": "CPU s per 1,000,000", "failed": "failed of 1,000,000",
    "idle": "MiB", "own": "of it of no file", "open": "MiB with 1,000 connections", "many": "MiB with 10,000 names",
    "fresh": "the same, started anew"}
# As many processors may be busy with other things.
QUIET = 0.1
# Shown beside what there is without any proxy, too.
COMPARED = {"rate", "gib", "p50", "p99", "machine", "machine_gib"}


def _row(cells):
    return f"| {' | '.join(cells)} |\n"


def _head(titles):
    return _row(titles) + _row("---" for _ in titles)


def verdicts(book, all_of):
    text = _head(["what", "beside", "target", "ratio, or figure", "", "ours", "theirs"])
    for target in all_of:
        ratios = target.ratios(book)
        bound = f"≤ {short(target.most)}" if target.most is not None else f"≥ {short(target.least)}"
        if not ratios:
            text += _row([target.what, target.beside or "-", bound, "-", "not measured", "-", "-"])
            continue
        least, most = min(ratios), max(ratios)
        found = short(ratios[0]) + (f" ({short(least)}-{short(most)})" if least < most else "")
        word = "met" if target.met(ratios[0]) else "**missed**"
        values = [short(value.at(book)) if target.beside else "-" for value in (target.ours, target.theirs)]
        text += _row([target.what, target.beside or "-", bound, found, word, *values])
    return text


def figures(book):
    text = ""
    for measure in MEASURES:
        rows = book.rows(measure)
        columns = [column for column in COLUMNS if any(book.rounds(measure, row, column) for row in rows)]
        if columns:
            text += f"\n### {TITLES[measure]}\n\n" + _head(["", *(COLUMNS[column] for column in columns)])
        for row in rows:
            text += _row([row, *(_cell(book, measure, row, column) for column in columns)])
    return text


def _cell(book, measure, row, column):
    values, floor = book.rounds(measure, row, column), book.rounds(measure, "direct", column)
    if not values:
        return "-"
    compared = column in COMPARED and row != "direct" and floor and median(floor) > 0
    return spread(values) + (f" ×{short(median(values) / median(floor))}" if compared else "")


def _said(command, word=""):
    """The line with this word that a program says of itself."""
    done = subprocess.run(command, capture_output=True, text=True)
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if word in line.lower()), "unknown")


def _besides(busy):
    """What other programs took before the run and after it."""
    text = "other programs kept %.2f processors busy before the run, %.2f after it" % busy
    return text if max(busy) <= QUIET else f"**not to be trusted: {text}**"


def setting(options, took, busy):
    """Commit, machine and programs."""
    from peers import ENVOY
    from tombolo import program
    cpu = [line.partition(":")[2].strip() for line in read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    commit = _said(["git", "rev-parse", "--short=12", "HEAD"])
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"]).returncode != 0
    lines = [
        f"commit {commit}{', changed' if changed else ''}",
        f"{cpu[0] if cpu else 'processor unknown'}, {os.cpu_count()} cores, Linux {os.uname().release}",
        _besides(busy),
        f"{options.rounds} rounds of {options.seconds} s each, {took:.0f} s in all",
        ", ".join([_said([program("tombolo-gateway"), "--version"]), _said([ENVOY, "--version"], "version").split("version: ")[-1] + " (Envoy)",
                   _said(["haproxy", "-v"]), _said(["nginx", "-v"]), _said(["unbound", "-V"])]),
    ]
    return "".join(f"- {line}\n" for line in lines)


def text(options, book, took, busy):
    return f"{setting(options, took, busy)}\n## Targets\n\n{verdicts(book, targets())}\n## Figures\n{figures(book)}"
