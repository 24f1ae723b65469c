#!/usr/bin/env python3
"""Runs a command under an OCI seccomp profile, as far as kata-runtime's uses the format: names that are allowed.

    seccomp.py PROFILE [--without CALL]... COMMAND ARGUMENT...
    seccomp.py PROFILE --check < names     which of these names the profile does not allow

What is not allowed ends the process with SIGSYS, whatever the profile's default action is, so that nothing goes unseen.
"""

import ctypes
import json
import os
import platform
import re
import struct
import sys

HEADERS = {"x86_64": ("x86_64-linux-gnu/asm/unistd_64.h", 0xC000003E), "aarch64": ("asm-generic/unistd.h", 0xC00000B7)}
ALLOW, KILL = 0x7FFF0000, 0x80000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def allowed(path):
    with open(path) as file:
        profile = json.load(file)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO", "everything else is refused"
    names = set()
    for rule in profile["syscalls"]:
        assert rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args"), "only plain permissions are understood here"
        names.update(rule["names"])
    return names


def numbers():
    header, arch = HEADERS[platform.machine()]
    with open(f"/usr/include/{header}") as file:
        return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", file.read())}, arch


def apply(names):
    known, arch = numbers()
    calls = sorted({known[name] for name in names if name in known})
    code = [(0x20, 0, 0, 4), (0x15, 1, 0, arch), (0x06, 0, 0, KILL), (0x20, 0, 0, 0)]
    for call in calls:  # equal: allow, at the next instruction
        code += [(0x15, 0, 1, call), (0x06, 0, 0, ALLOW)]
    code.append((0x06, 0, 0, KILL))
    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(raw))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")


def main():
    path, arguments = sys.argv[1], sys.argv[2:]
    names = allowed(path)
    if arguments == ["--check"]:
        print("\n".join(sorted(set(sys.stdin.read().split()) - names)))
        return
    while arguments[0] == "--without":
        names.remove(arguments[1])
        arguments = arguments[2:]
    apply(names)
    os.execvp(arguments[0], arguments)


if __name__ == "__main__":
    main()
