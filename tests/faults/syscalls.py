#!/usr/bin/env python3
"""Makes every system call that a command makes fail once, one error at a time, and judges what the command does.

Started by syscalls.sh, which makes the containers. An injection is one run of one command under strace, in which the
N-th call of one kind returns an error without being made. The answer is compared with undisturbed ones: everything has
to be there, and figures have to be plausible (within a factor of two of the smallest and largest undisturbed).
"""

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = os.environ["KATA_RUNTIME"]
STATE, PLAIN, SANDBOX, APP = (os.environ[name] for name in ("STATE", "PLAIN", "SANDBOX", "APP"))
DEADLINE = 10

# The command lines, and how to read what each prints.
COMMANDS = {
    "events": (["events", "--stats", "--format", "json", PLAIN, APP], "json"),
    "list": (["list"], "text"),
    "list -o json": (["list", "-o", "json"], "json"),
    "metrics": (["metrics", SANDBOX], "samples"),
    "metrics --summary": (["metrics", "--summary", SANDBOX], "text"),
    "overview": ([], "text"),
    "monitor": (["monitor", "--listen-address", "127.0.0.1:PORT"], "samples"),
}

# What can plausibly go wrong in each call. ENOENT is left out where a file is opened: it means that the container has
# gone, and leaving it out of the answer is right. So is EPIPE on writing: the reader has gone.
ERRORS = {
    "openat": "EIO EACCES EMFILE ENOMEM EINTR",
    "read": "EIO EINTR ENOMEM",
    "pread64": "EIO EINTR ENOMEM",
    "write": "EIO ENOSPC EINTR",
    "close": "EINTR",
    "statx": "EIO EACCES ENOMEM",
    "newfstatat": "EIO EACCES ENOMEM",
    "getdents64": "EIO ENOMEM",
    "readlink": "EIO EACCES ENOMEM",
    "lseek": "EINVAL",
    "socket": "EMFILE ENFILE ENOMEM EACCES",
    "socketpair": "EMFILE ENOMEM",
    "connect": "ECONNREFUSED EACCES EAGAIN EINTR ENOMEM",
    "sendto": "ECONNRESET EPIPE ENOMEM EINTR",
    "writev": "ECONNRESET EPIPE ENOMEM EINTR",
    "recvfrom": "ECONNRESET ENOMEM EINTR",
    "accept4": "EMFILE ENFILE ECONNABORTED ENOMEM EINTR",
    "bind": "EADDRINUSE EACCES",
    "listen": "EADDRINUSE",
    "shutdown": "ENOTCONN",
    "getsockname": "ENOMEM",
    "setsockopt": "ENOMEM",
    "epoll_create1": "EMFILE ENOMEM",
    "epoll_ctl": "ENOMEM ENOSPC",
    "epoll_wait": "EINTR",
    "poll": "EINTR ENOMEM",
    "eventfd2": "EMFILE ENOMEM",
    "fcntl": "EMFILE EINVAL",
    "mmap": "ENOMEM",
    "mprotect": "ENOMEM",
    "munmap": "ENOMEM",
    "brk": "ENOMEM",  # which the kernel tells by returning another address: see inject()
    "madvise": "EINVAL",
    "mremap": "ENOMEM",
    "getrandom": "EINTR ENOSYS",
    "sched_getaffinity": "EPERM",
    "prlimit64": "EPERM",
    "sigaltstack": "ENOMEM",
    "rseq": "ENOSYS",
    "set_robust_list": "ENOSYS",
    "clone3": "EAGAIN",
    "futex": "EINTR",
}
# Cannot fail, or are the start and the end of the process themselves.
NEVER = {"execve", "exit_group", "exit", "arch_prctl", "set_tid_address", "gettid", "getpid", "rt_sigreturn",
         "restart_syscall", "rt_sigaction", "rt_sigprocmask", "prctl"}

# Injections into what libraries do for themselves, by the call's text: the kernel never returns these errors there.
IMPOSSIBLE = [
    (r'^write\(\d+<anon_inode:\[eventfd\]>, "\\1\\0\\0\\0\\0\\0\\0\\0", 8\)', "tokio wakes itself by an eventfd"),
    (r'^sendto\(\d+<[^>]*>, "\\1", 1, MSG_NOSIGNAL', "tokio tells itself of signals by a socketpair"),
    (r'^recvfrom\(\d+<[^>]*>, .*, 128, 0, NULL, NULL\)', "tokio tells itself of signals by a socketpair"),
]

# Figures of the host, the guest (here: the host) and the exporter, which move between two answers.
MOVING = ("kata_guest_", "kata_monitor_", "kata_hypervisor_", "kata_shim_", "kata_agent_", "kata_sandbox_")

# What may be missing of a container without being said in the answer (--verbose says it): what only a guest's agent or
# another place than the shim tells. A missing figure is absent, not zero.
DETAILS = {
    "events": r"\.data\.(interfaces|memory\.raw|memory\.kernel)\b",
    "list": r"$^",
    "list -o json": r"\]\.(guest\.|vmm_pid|monitor)",
    "metrics": r"$^",
    "metrics --summary": r"^(guest: agent|in the guest:|VMM'S THREADS|main # # [#-]|disk: |dropped packets: |memory: )",
    "overview": r"$^",
    "monitor": r"^(?!container_cpu_usage_seconds_total|container_memory_working_set|kata_monitor_container_(?!info)|kata_monitor_running"
               r"|kata_guest_|kata_hypervisor_|kata_agent_|kata_shim_)",
}
# Findings that are known and not repaired yet: how they show (in the injection, or what came of it), and what should be.
KNOWN = [
    (r"library/std/src/sys/pal/unix/stack_overflow", "Rust's library ends the process if a new thread gets no signal stack"),
]
# How a text answer says that it could not tell something.
SAID = re.compile(r"\berror\b|shim gone|not known: |not answering")

GOOD = ("same", "part missing, said", "detail missing", "refused, said", "start-up")
BAD = ("known", "CRASH", "HANG", "WRONG", "SILENT")


def normalized(text):
    for name, value in (("PLAIN", PLAIN), ("SANDBOX", SANDBOX), ("APP", APP), ("STATE", STATE)):
        text = text.replace(value, name)
    # The state directory's random name has no digits that move; everything else that is a number may.
    return text


def flatten(value, path, out):
    if isinstance(value, dict):
        # Elements of lists are told apart by what names them, not by where they are.
        for key, inner in value.items():
            flatten(inner, f"{path}.{key}", out)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            name = inner.get("id", inner.get("name", index)) if isinstance(inner, dict) else index
            flatten(inner, f"{path}[{name}]", out)
    else:
        out[path] = value


def facts(kind, text):
    """An answer as a dictionary: what is told → its value."""
    text = normalized(text)
    out = {}
    if kind == "json":
        for line in text.splitlines():
            value = json.loads(line)
            flatten(value, value.get("id", "") if isinstance(value, dict) else "", out)
    elif kind == "samples":
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                # Sandboxes of others are found by their directories in /run/vc/sbs.
                if 'sandbox_id="' in name and 'sandbox_id="SANDBOX"' not in name:
                    continue
                out[name] = float(value)
    else:
        for line in text.splitlines():
            # Where a figure of the summary is from may change: the processes on the host, or the shim's page.
            line = re.sub(r"^((?:VMM|shim) .*?) (/proc/|kata_hypervisor_|process_).*", r"\1", line)
            # A moving figure is one with a unit or a decimal point, or stands alone.
            line = re.sub(r"(?<![\w-])\d[\d.]*(?:[smhd%]|[KMG]i?B|B)?(?:\d+[smh])*(?![\w-])", "#", line)
            key = " ".join(line.split())
            out[key] = out.get(key, 0) + 1
    return out


class Baseline:
    """What undisturbed answers are like. Grows when a figure moved."""

    def __init__(self, command):
        self.command = command
        self.seen = []
        self.lock = threading.Lock()

    def add(self, times):
        for _ in range(times):
            # Every other one as slow as what it is compared with.
            run = undisturbed(self.command, slow=len(self.seen) % 2)
            if run.outcome is not None or run.status != 0:
                raise SystemExit(f"{self.command}: undisturbed, it fails: {run.outcome} {run.stderr}")
            with self.lock:
                self.seen.append(facts(COMMANDS[self.command][1], run.stdout))

    def difference(self, got):
        """What of this answer no undisturbed one explains: (missing or wrong?, what), or None."""
        with self.lock:
            always = set.intersection(*(set(one) for one in self.seen))
            known = set.union(*(set(one) for one in self.seen))
        missing = sorted(always - set(got))
        if missing:
            return ("missing", missing)
        for path, value in got.items():
            values = [one[path] for one in self.seen if path in one]
            if path not in known:
                return ("other", [f"{path} = {value}"])
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                numbers = [v for v in values if isinstance(v, (int, float))]
                moves = path.startswith(MOVING) and (value > 0 or path.startswith("kata_guest_") or min(numbers, default=0) <= 1)
                if not numbers or not (moves or min(numbers) / 2 <= value <= max(numbers) * 2):
                    return ("other", [f"{path} = {value}, not {values[:3]}"])
            elif value not in values:
                return ("other", [f"{path} = {value!r}, not {values[:3]}"])
        return None


class Run:
    outcome = None  # "HANG", or None
    recovered = False

    def __init__(self, status=None, stdout="", stderr=""):
        self.status, self.stdout, self.stderr = status, stdout, stderr


def scrape(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def run(command, prefix):
    line = prefix + [PROGRAM, "--state", STATE] + COMMANDS[command][0]
    if command != "monitor":
        return run_command(line)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return run_monitor([word.replace("PORT", str(port)) for word in line], port)


def run_command(line):
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, errors="replace", start_new_session=True)
    try:
        stdout, stderr = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        ended = Run(None, stdout, stderr)
        ended.outcome = "HANG"
        return ended
    return Run(process.returncode, stdout, stderr)


def run_monitor(line, port):
    """Starts the exporter, scrapes it three times, and ends it. The answer is the first page. One call fails, so one scrape
    may: `recovered` is whether the others did not."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        ended = Run()
        end = time.monotonic() + DEADLINE
        pages = []
        while time.monotonic() < end and process.poll() is None and len(pages) < 3:
            try:
                pages.append(scrape(port))
            except ConnectionRefusedError:
                if pages:  # it listened before
                    break
                time.sleep(0.01)
            except TimeoutError:
                ended.outcome = "HANG"
                break
            except (OSError, http.client.HTTPException) as error:
                pages.append((None, f"client: {type(error).__name__} {error}"))
        alive = process.poll() is None
        if alive:
            if not pages:
                ended.outcome = "HANG"
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=DEADLINE)
            except subprocess.TimeoutExpired:
                ended.outcome = "HANG"
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        # strace ends by the signal, whether the exporter does or not: one whose own signal was made to fail does not.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said.seek(0)
        ended.stderr = "".join(one for one in said if not one.startswith("listening on "))
        if pages and pages[0][0] == 200:
            ended.stdout = pages[0][1]
        elif pages:
            ended.stderr += str(pages[0])
        # While the exporter lives, what counts is what the client got.
        ended.status = int(not ended.stdout) if alive else process.returncode
        ended.recovered = bool(alive and sum(status == 200 for status, _ in pages) >= 2)
        return ended


def undisturbed(command, slow=False):
    return run(command, ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "signal=none"] if slow else [])


def calls_of(command):
    """How often each call is made: (in all, before the runtime is there)."""
    with tempfile.NamedTemporaryFile("r") as trace:
        run(command, ["strace", "-f", "-qq", "-o", trace.name])
        all_calls, early = collections.Counter(), collections.Counter()
        starting = True
        for line in trace:
            found = re.match(r"\d+ +(\w+)\(", line)
            if found:
                starting = starting and found[1] != "epoll_create1"
                all_calls[found[1]] += 1
                early[found[1]] += starting
    return all_calls, early


def says_so(command, ran):
    """Whether a person or a Prometheus is told that something is missing."""
    if command == "monitor":
        return bool(re.search(r"^kata_monitor_(container_up\{.*\} 0|\w*fail\w*(\{.*\})? [1-9]|\w*errors?\w*(\{.*\})? [1-9])",
                              ran.stdout, re.M))
    return bool(ran.stderr.strip())


def judge(command, baseline, early, call, when, ran):
    """The outcome of one injection, and what to say about it."""
    if ran.outcome:
        return ran.outcome, ran.stderr.splitlines()[:2]
    # strace ends as what it traces ended; a shell would say 128 + the signal.
    if ran.status is None or ran.status < 0 or ran.status >= 101 or "panicked at" in ran.stderr:
        first = [f"status {ran.status}"] + ran.stderr.strip().splitlines()
        if when <= early[call] or "memory allocation of" in ran.stderr:
            return "start-up", first[:2]
        return "CRASH", first[:3]
    if ran.status != 0:
        return ("refused, said" if ran.stderr.strip() else "SILENT"), ran.stderr.strip().splitlines()[:1]
    try:
        got = facts(COMMANDS[command][1], ran.stdout)
    except ValueError as reason:
        return "WRONG", [f"not to be read: {reason}"]
    difference = baseline.difference(got)
    if difference:
        baseline.add(3)  # a figure may have moved
        difference = baseline.difference(got)
    if not difference:
        return "same", None
    how, what = difference
    new = [str(one) for one in got if not any(one in seen for seen in baseline.seen)]
    why = [f"{how} ({len(what)}): " + ", ".join(what[:2])] + [f"new: {one}" for one in new[:3]] + ran.stderr.splitlines()[:1]
    if says_so(command, ran) or any(SAID.search(one) for one in new):
        return "part missing, said", why
    if how == "missing" and all(re.search(DETAILS[command], one) for one in what + new):
        return "detail missing", why
    return "WRONG" if how == "other" or new else "SILENT", why


def inject(command, baseline, early, call, error, when):
    with tempfile.NamedTemporaryFile("r") as trace:
        ran = run(command, ["strace", "-f", "-qq", "-o", trace.name, "--seccomp-bpf", "-y", "-e", f"trace={call}",
                            "-e", "signal=none", "-e", f"inject={call}:{'retval=0' if call == 'brk' else f'error={error}'}:when={when}"])
        injected = [line for line in trace if "(INJECTED)" in line]
    if not injected:
        return "not reached", None, None
    # strace counts in each thread on its own, so there may be several.
    line = normalized("; ".join(one.split(" ", 1)[1].strip() for one in injected))
    if any(re.search(text, one.split(" ", 1)[1].strip()) for text, _ in IMPOSSIBLE for one in injected):
        return "impossible", None, line
    outcome, why = judge(command, baseline, early, call, when, ran)
    if outcome in BAD and any(re.search(text, one) for text, _ in KNOWN for one in why + [line, f"{why} {line}"]):
        outcome = "known"
    if command == "monitor" and outcome in GOOD and ran.status == 0 and not ran.recovered:
        outcome, why = "WRONG", ["more than one scrape fails"]
    return outcome, why, line


def plan(counts, quick, at_most):
    for call in sorted(counts):
        if call in NEVER:
            continue
        errors = ERRORS.get(call, "EIO").split()
        positions = range(1, counts[call] + 1)
        if at_most:
            positions = positions[::-(-len(positions) // at_most)]
        for number, when in enumerate(positions):
            if quick and when not in (1, 2, counts[call] // 2, counts[call]):
                continue
            for error in [errors[number % len(errors)]] if quick else errors:
                yield call, error, when


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="first, second, middle and last of each call, an error each")
    parser.add_argument("--command", action="append", choices=COMMANDS, help="only this one; may be repeated")
    parser.add_argument("--record", help="write the table here")
    parser.add_argument("--at-most", type=int, help="this many places of each call, evenly spread, instead of all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()

    table, findings, total = [], [], collections.Counter()
    for command in options.command or COMMANDS:
        begin = time.monotonic()
        baseline = Baseline(command)
        baseline.add(5)
        counts, early = calls_of(command)
        outcomes = collections.defaultdict(collections.Counter)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            waiting = {pool.submit(inject, command, baseline, early, *one): one
                       for one in plan(counts, options.quick, options.at_most)}
            for done in concurrent.futures.as_completed(waiting):
                call, error, when = waiting[done]
                outcome, why, line = done.result()
                outcomes[call][outcome] += 1
                total[outcome] += 1
                if outcome in BAD and outcome != "known":
                    findings.append((command, call, error, when, outcome, why, line))
                    print(f"{outcome}: {command}: {call}:{error}:when={when}: {why}\n    {line}", flush=True)
        made = sum(sum(of.values()) - of["not reached"] - of["impossible"] for of in outcomes.values())
        print(f"{command}: {made} injections in {time.monotonic() - begin:.0f} s: "
              + ", ".join(f"{sum(of[o] for of in outcomes.values())} {o}" for o in GOOD + BAD
                          if sum(of[o] for of in outcomes.values())), flush=True)
        table.append((command, counts, outcomes))
    if options.record:
        os.makedirs(os.path.dirname(options.record), exist_ok=True)
        with open(options.record, "w") as out:
            write(out, table, findings)
    print(f"{sum(total[o] for o in GOOD + BAD)} injections, {len(findings)} findings")
    return 1 if findings else 0


def write(out, table, findings):
    columns = GOOD + BAD
    out.write(f"| command | call | made | injections | {' | '.join(columns)} |\n|---|---|{'---|' * (2 + len(columns))}\n")
    for command, counts, outcomes in table:
        for call in sorted(outcomes):
            of = outcomes[call]
            cells = [str(of[o]) if of[o] else "" for o in columns]
            out.write(f"| `{command}` | `{call}` | {counts[call]} | {sum(of.values()) - of['not reached'] - of['impossible']} | {' | '.join(cells)} |\n")
    for command, call, error, when, outcome, why, line in findings:
        out.write(f"\n- {outcome}: `{command}`, `{line}`: {why}\n")


if __name__ == "__main__":
    sys.exit(main())
