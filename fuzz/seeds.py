#!/usr/bin/env python3
"""Writes what each fuzz target begins with: recorded replies, files and pages. fuzz/seeds.py DIRECTORY"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SHIMSTAT = HERE / "../crates/shimstat/tests"
PROMTEXT = HERE / "../crates/promtext/tests/fixtures"
CORPUS = pathlib.Path(sys.argv[1])


def add(target, name, *parts):
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    content = b"".join(part if isinstance(part, bytes) else bytes([part]) for part in parts)
    (directory / name).write_bytes(content)


def varint(number):
    encoded = b""
    while number >= 0x80:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def nested(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def response(payload, stream=1):
    """A ttrpc frame with a response in it (ttrpc.proto: payload is field 2)."""
    body = nested(2, payload)
    return len(body).to_bytes(4, "big") + stream.to_bytes(4, "big") + b"\x02\0" + body


files = sorted(path for path in SHIMSTAT.rglob("*") if path.is_file() and "tests/support" not in str(path))
for number, path in enumerate(files):
    content, name = path.read_bytes(), f"recorded-{number}"
    if path.suffix == ".bin" and "v1" in path.name:
        add("task_stats", name, 0, content)
        any_ = nested(1, b"io.containerd.cgroups.v1.Metrics") + nested(2, content)
        state = nested(1, b"a") + b"\x18\x07\x20\x02"
        add("task_frames", name, 7, response(state), response(nested(1, any_), 3))
    elif path.suffix == ".bin" and "v2" in path.name:
        add("task_stats", name, 1, content)
    elif path.suffix == ".bin":
        for kind in range(8):
            add("agent_reply", f"{name}-{kind}", kind, content)
            add("agent_reply", f"{name}-{kind}-framed", kind | 0x80, response(content))
    elif len(content) < 8000:
        add("bundle_files", name, content)
        if path.name.startswith("urpc"):
            add("runsc_reply", name, 9, content)
        for kind in range(4):
            add("proc_tables", f"{name}-{kind}", kind, content)

state = nested(1, b"a") + b"\x18\x07\x20\x02"
add("task_frames", "state", 3, response(state), response(state, 3))
add("proc_tables", "net-dev", 0, b"""\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
  eth0: 5000      40    1    2    0     0          0         0     7000      60    3    4    0     0       0          0
""")
add("proc_tables", "net-tcp", 1, b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
""")
add("proc_tables", "net-udp", 1, b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  1: 00000000:0044 00000000:0000 07 00000000:00000010 00:00000000 00000000     0        0 2 2 0 5
""")
add("proc_tables", "stat", 3, b"1 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12" + b" 0" * 20 + b" 13 14\n")
add("proc_tables", "mountinfo", 3, b"30 25 0:26 / /sys/fs/cgroup\\040x rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
add("proc_tables", "limits", 3, b"Limit Soft Hard Units\nMax open files            1024                 1048576              files     \n")
add("proc_tables", "files", 2, b"usage_usec 5\nuser_usec 3\n\0max\n\0some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n\0"
    b"8:0 rbytes=1 wbytes=2 rios=3 wios=4\n\x008:0 Read 5\n8:0 Write 6\nTotal 11\n")
mapping = b"""\
7f1c4a000000-7f1c6a000000 %b 00000000 00:01 1027                       %b
Size:             524288 kB
Rss:                2048 kB
Pss:                1024 kB
Anonymous:           512 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:    4096 kB
VmFlags: rd wr sh mr mw me ms
"""
add("smaps", "shared", 3, *(mapping % (b"rw-s", name) for name in [b"/memfd:ram (deleted)", b"/dev/shm/x", b"/usr/lib/x.so"]))
add("smaps", "own", 5, *(mapping % (b"rw-p", name) for name in [b"", b"[heap]", b"[anon:x]", b"[anon: glibc: x]"]))
add("smaps", "code", 2, mapping % (b"r-xp", b"/usr/bin/qemu"))
for recorded in ["kata-3.30-go", "kata-3.30-rs"]:
    page = (PROMTEXT / recorded / "metrics.txt").read_bytes()
    for start in range(0, len(page), 700):
        add("metrics_text", f"{recorded}-{start}", 128, page[start:start + 700])
        add("metrics_relabel", f"{recorded}-{start}", page[start:start + 700])
odd = (b'# HELP a:b x\\n\n# TYPE a:b histogram\na:b_bucket{le="+Inf"} 2 -5\na:b_sum NaN\na:b_count 2\n'
       b'go_x{ a = "}\\"\\\\\\n" , } 1e3\n#\n# TYPE s summary\ns{quantile="0.5"} 1\n')
add("metrics_text", "odd", 77, odd)
add("metrics_relabel", "odd", odd)
for name, answer in {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nup\n",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nup\n\r\n0\r\nA: b\r\n\r\n",
    "close": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nConnection: close\r\n\r\nup\n",
    "error": b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\n\r\n",
}.items():
    add("http_answer", name, 3, answer)
add("web_config", "all", b"""\
tls_server_config:
  cert_file: a.crt
  key_file: a.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS12
  cipher_suites: [TLS_AES_128_GCM_SHA256]
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
rate_limit:
  interval: 1s
  burst: 20
basic_auth_users:
  alice: $2y$10$abcdefghijklmnopqrstuuJz0mJ1yV9l0wJ1yV9l0wJ1yV9l0wJ1y
""")
for text in ["1h2m3.5s", "-500µs", "1.5ms", "0", "9223372036854775807ns", ".5s", "3"]:
    add("go_duration", text, text.encode())
for number, text in enumerate(["abc-1.2_3", "ns/pod/c", "vsock://3:1024", "hvsock:///run/vc/a.sock:1024", "0123456789abcdef"]):
    add("ids_and_names", str(number), text.encode())
add("terminal_input", "keys", "q\x1b[A\x1bOA\x1b[5~\x1b[1;5Aä日\x1b\x1b[200~".encode())
for number, text in enumerate(["unix:///run/a.sock", "@abstract", '{"version":3,"address":"unix:///run/a","protocol":"ttrpc"}']):
    add("bundle_files", f"text-{number}", text.encode())
