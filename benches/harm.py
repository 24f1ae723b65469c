"""Measures for harm.sh, which makes the containers. Arguments: rounds, kills and creations a round."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request

E = os.environ
CTR = E["CTR"].split()
ROUNDS, KILLS, CREATES = (int(given) for given in (sys.argv[1:] + ["5", "40", "10"][len(sys.argv) - 1:]))
SHIM = ["--runtime", "io.containerd.test-sandbox.v2", "--annotation", "io.kubernetes.cri.container-type=container",
        "--annotation", f"io.kubernetes.cri.sandbox-id={E['SANDBOX']}"]
# What is killed: with SIGCONT, which a process does not notice.
VICTIMS = {"runc": E["PLAIN"], "sandbox, guest well": E["APP"], "sandbox, guest hung": E["STUCK"]}
# Where a container is created. In a guest that hangs none can be.
PLACES = {"runc": [], "sandbox, guest well": SHIM}


def timed(command):
    begin = time.perf_counter()
    done = subprocess.run(CTR + command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, timeout=120)
    took = (time.perf_counter() - begin) * 1000
    if done.returncode:
        raise SystemExit(f"ctr {' '.join(command)}: {done.stderr}")
    return took


def create(options):
    name = f"harm-{os.getpid()}-{time.time_ns()}"
    with open(E["IDS"], "a") as ids:
        ids.write(f"{E['NAMESPACE']} {name}\n")
    took = timed(["run", "--detach", "--null-io", *options, E["IMAGE"], name, "sleep", "1000000"])
    subprocess.run(CTR + ["task", "rm", "--force", name], capture_output=True, timeout=120)
    subprocess.run(CTR + ["container", "rm", name], capture_output=True, timeout=120)
    return took


class Scraper(threading.Thread):
    """Scrapes each second, and counts."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.ended, self.good, self.failed = port, threading.Event(), 0, 0

    def run(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self.ended.wait(1):
            try:
                with opener.open(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as page:
                    page.read()
                self.good += 1
            except OSError:
                self.failed += 1


@contextlib.contextmanager
def observed():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [E["KATA_RUNTIME"], "--state", E["STATE"]]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(program + ["events", "--all", "--interval", "1s", "--format", "json"], **quiet),
               subprocess.Popen(program + ["monitor", "--listen-address", f"127.0.0.1:{port}"], **quiet)]
    scraper = Scraper(port)
    scraper.start()
    time.sleep(2)
    try:
        yield scraper
    finally:
        scraper.ended.set()
        dead = [one.args for one in started if one.poll() is not None]
        for one in started:
            one.terminate()
            one.wait(timeout=10)
        if dead or not scraper.good:
            raise SystemExit(f"nothing was observed: {dead} ended, {scraper.good} scrapes")


def measure(taken, who):
    for _ in range(KILLS):
        for name, victim in VICTIMS.items():
            taken.setdefault(("kill", name), {}).setdefault(who, []).append(timed(["task", "kill", "--signal", "SIGCONT", victim]))
    for _ in range(CREATES):
        for name, options in PLACES.items():
            taken.setdefault(("create", name), {}).setdefault(who, []).append(create(options))


def at(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def main():
    taken, scrapes, failed = {}, 0, 0
    for _ in range(ROUNDS):
        measure(taken, "without")
        with observed() as scraper:
            measure(taken, "with")
        scrapes, failed = scrapes + scraper.good, failed + scraper.failed
    print(f"{scrapes} scrapes, {failed} failed; load at the end: {open('/proc/loadavg').read().split()[0]}\n")
    print("| | on | times | p50 without | with | p99 without | with | more at p99 |\n|---|---|---|---|---|---|---|---|")
    for (what, name), by in taken.items():
        one, two = by["without"], by["with"]
        print(f"| `{'ctr task kill' if what == 'kill' else 'ctr run'}` | {name} | {len(one)} | {at(one, .5):.1f} ms | {at(two, .5):.1f} ms "
              f"| {at(one, .99):.1f} ms | {at(two, .99):.1f} ms | {at(two, .99) - at(one, .99):+.1f} ms |")


main()
