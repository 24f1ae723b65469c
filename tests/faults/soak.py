"""Scrapes, samples and judges for soak.sh. Arguments: minutes, scrapers, the interval of the stream in seconds, address, the
stream's output, NAME=PID…, ids."""

import collections
import glob
import gzip
import http.client
import json
import os
import re
import statistics
import sys
import threading
import time
import urllib.request

MINUTES, SCRAPERS, PACE = float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
PLACE, STREAM = sys.argv[4:6]
PIDS = {name: int(pid) for name, pid in (word.split("=") for word in sys.argv[6:] if "=" in word)}
STEADY = [word for word in sys.argv[6:] if "=" not in word]
# Scrapers come ten at once, the tens spread over this time, and then as often.
INTERVAL, AT_ONCE = 2 * PACE, 10
UP = re.compile(rb'[{,]id="([^"]*)"[^}]*} 1$', re.M)


class Scrapes:
    def __init__(self):
        self.lock = threading.Lock()
        self.good, self.problems, self.slowest = 0, collections.Counter(), 0.0

    def one(self, opener):
        begin = time.monotonic()
        try:
            # As Prometheus does; and a page of 200 containers has 4 MB.
            request = urllib.request.Request(f"http://{PLACE}/metrics", headers={"Accept-Encoding": "gzip"})
            with opener.open(request, timeout=10) as answer:
                page = gzip.decompress(answer.read())
        except (OSError, EOFError, http.client.HTTPException) as error:
            problem = f"scrape: {error!r}"
        else:
            begins = page.find(b"\nkata_monitor_container_up{")
            ends = page.find(b"\n#", begins)
            up = {one.decode() for one in UP.findall(page, begins, ends if ends > 0 else len(page))}
            down = set(STEADY) - up
            problem = f"{len(down)} containers are not up" if down else None
        with self.lock:
            self.slowest = max(self.slowest, time.monotonic() - begin)
            if problem:
                self.problems[problem] += 1
            else:
                self.good += 1

    def run(self, number, end):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        next_time = time.monotonic() + INTERVAL * (number // AT_ONCE * AT_ONCE) / SCRAPERS
        while next_time < end:
            time.sleep(max(0, next_time - time.monotonic()))
            self.one(opener)
            next_time = max(next_time + INTERVAL, time.monotonic())


def sample(pid):
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    # Anonymous memory: what a leak would be.
    return {"KiB": int(status["RssAnon"].split()[0]), "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": int(status["Threads"])}


def main():
    end = time.monotonic() + MINUTES * 60
    scrapes = Scrapes()
    threads = [threading.Thread(target=scrapes.run, args=(number, end), daemon=True) for number in range(SCRAPERS)]
    for thread in threads:
        thread.start()
    samples = {name: [] for name in PIDS}
    failures = []
    while time.monotonic() < end and not failures:
        time.sleep(1)
        for name, pid in PIDS.items():
            try:
                samples[name].append(sample(pid))
            except (OSError, KeyError):
                failures.append(f"{name} has ended")
    for thread in threads:
        thread.join(20)

    print("\n| process | | first third | last third | largest |\n|---|---|---|---|---|")
    # How much more the last third may have than the first: the warming up is in the first.
    slack = {"KiB": lambda first: first * 0.1 + 1024, "descriptors": lambda first: 8 + first * 0.1, "threads": lambda first: 2}
    for name, taken in samples.items():
        third = len(taken) // 3
        for what, allowed in slack.items():
            values = [one[what] for one in taken]
            if third == 0:
                continue
            first, last = statistics.median(values[:third]), statistics.median(values[-third:])
            print(f"| {name} | {what} | {first:.0f} | {last:.0f} | {max(values)} |")
            if last > first + allowed(first):
                failures.append(f"{name}: {what} grew from {first:.0f} to {last:.0f}")
    if scrapes.problems:
        failures.append(f"scrapes: {dict(scrapes.problems)}")
    seen, lines = collections.Counter(), 0
    with open(STREAM) as stream:
        for line in stream:
            lines += 1
            if line.endswith("}\n"):  # the last may be half of one
                seen[json.loads(line)["id"]] += 1
    # Each of the three asks one thing at a time.
    at_once = collections.Counter()
    for path in glob.glob("/run/vc/sbs/*/calls"):
        with open(path) as calls:
            at_once[max((int(line.split()[0]) for line in calls if line.endswith(" at once\n")), default=0)] += 1
    print(f"\nquestions to one sandbox at once, at most: {', '.join(f'{most} to {count}' for most, count in sorted(at_once.items()))}")
    if not at_once or max(at_once) > len(PIDS):
        failures.append(f"sandboxes were asked {max(at_once, default=0)} things at once")
    absent = [one for one in STEADY if seen[one] < MINUTES * 60 / PACE / 4]
    if absent:
        failures.append(f"the stream has fewer than one event in {4 * PACE:.0f} s of {len(absent)} containers")
    print(f"\n{scrapes.good} good scrapes, {sum(scrapes.problems.values())} others; the slowest took {scrapes.slowest:.2f} s; "
          f"{lines} lines of the stream about {len(seen)} containers; load {open('/proc/loadavg').read().split()[0]}")
    for failure in failures:
        print(f"FAILED  {failure}")
    return 1 if failures else 0


sys.exit(main())
