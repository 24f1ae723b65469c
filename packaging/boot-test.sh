#!/usr/bin/env bash
# Run by test-package.sh: boots systemd in $COPY, a copy of the machine, in a container with its own network, and there
# installs the package and enables the service, with all its hardening.
set -euo pipefail
cp "$1" "$COPY/root/kata-runtime.deb"
# Images of machines forbid packages to start and stop services by this.
rm -f "$COPY/usr/sbin/policy-rc.d"
cat >"$COPY/root/boot-test" <<'TEST'
set -xeuo pipefail
not() { if "$@"; then exit 1; fi; }
dpkg --install /root/kata-runtime.deb
not systemctl is-active kata-runtime-monitor.service
not systemctl is-active kata-runtime-monitor.socket
mkdir -p /run/containerd/io.containerd.runtime.v2.task
systemctl enable --now kata-runtime-monitor.service
page=$(curl --silent --fail --max-time 20 http://127.0.0.1:8090/metrics)
grep '^kata_monitor_build_info' <<<"$page"
grep '^kata_monitor_scrape_failed_count 0$' <<<"$page"
pid=$(systemctl show --property MainPID --value kata-runtime-monitor.service)
# CAP_DAC_OVERRIDE (1), CAP_SYS_PTRACE (19); a system call filter; no new privileges.
grep -P '^CapEff:\t0000000000080002$' "/proc/$pid/status"
grep -P '^Seccomp:\t2$' "/proc/$pid/status"
grep -P '^NoNewPrivs:\t1$' "/proc/$pid/status"
[ -z "$(ls -A "/proc/$pid/root/root")" ]
# It is restarted without a refused connection: systemd listens.
systemctl restart kata-runtime-monitor.service
curl --silent --fail --max-time 20 --output /dev/null http://127.0.0.1:8090/healthz
# Where it listens is changed as docs/how-to/install.md says.
mkdir -p /etc/systemd/system/kata-runtime-monitor.socket.d
printf '[Socket]\nListenStream=\nListenStream=[::]:8091\n' >/etc/systemd/system/kata-runtime-monitor.socket.d/override.conf
systemctl daemon-reload
systemctl restart kata-runtime-monitor.socket kata-runtime-monitor.service
curl --silent --fail --max-time 20 --output /dev/null 'http://[::1]:8091/healthz'
not curl --silent --fail --max-time 20 --output /dev/null http://127.0.0.1:8090/healthz
rm -r /etc/systemd/system/kata-runtime-monitor.socket.d
dpkg --purge kata-runtime
not systemctl is-active kata-runtime-monitor.service
not systemctl is-active kata-runtime-monitor.socket
echo passed >/root/boot-test.result
TEST
cat >"$COPY/etc/systemd/system/boot-test.service" <<'UNIT'
[Service]
Type=oneshot
StandardOutput=file:/root/boot-test.log
StandardError=file:/root/boot-test.log
ExecStart=bash /root/boot-test
ExecStopPost=systemctl poweroff --force
UNIT
timeout 120 systemd-nspawn --quiet --register=no --keep-unit --private-network --boot --directory "$COPY" \
    systemd.unit=boot-test.service </dev/null >"$COPY/root/boot.log" 2>&1 || true
[ "$(cat "$COPY/root/boot-test.result" 2>/dev/null)" = passed ] && exit
tail -n 20 "$COPY/root/boot.log" "$COPY/root/boot-test.log" >&2
exit 1
