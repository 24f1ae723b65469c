# Run by test-package.sh in a copy of the machine; the packages are in /mnt.
version=$1
is() { [ "$1" = "$2" ] || { echo "test-package: expected '$2', got '$1'" >&2; exit 1; }; }
quietly() { "$@" >/tmp/log 2>&1 || { cat /tmp/log >&2; echo "test-package: failed: $*" >&2; exit 1; }; }

export MANWIDTH=500 MANOPT=--no-hyphenation
quietly apt-get --yes install /mnt/kata-runtime_*.deb
grep -qF "kata-runtime $version " <<<"$(kata-runtime --version)"
for command in "" -events -list -metrics -monitor -top -completion; do
    page=$(man --encoding=UTF-8 "kata-runtime$command" 2>/tmp/man-warnings | col -b)
    is "$(cat /tmp/man-warnings)" ""
    grep -q '^EXIT STATUS' <<<"$page"
    grep -q '^SEE ALSO' <<<"$page"
done
# The pages are of the same definition as the help.
page=$(man --encoding=UTF-8 kata-runtime-monitor 2>/dev/null | col -b)
for option in $(kata-runtime monitor --help | grep -oE '^ +(-[a-z], )?--[a-z.-]+' | grep -oE -- '--[a-z.-]+'); do
    grep -qF -- "$option" <<<"$page" || is "$option" "in the manual page"
done

# Completion, as shells load it by the program's name.
is "$(bash -c '. /usr/share/bash-completion/completions/kata-runtime
    COMP_WORDS=(kata-runtime mon) COMP_CWORD=1; _kata_runtime; echo "${COMPREPLY[*]}"')" monitor
is "$(fish -c 'complete -C "kata-runtime mon"' | cut -f1)" monitor
zsh -fc 'fpath=(/usr/share/zsh/vendor-completions $fpath); autoload -U compinit; compinit -u -D; [[ $_comps[kata-runtime] == _kata-runtime ]]'

# The service is there, and off.
is "$(systemctl --root=/ is-enabled kata-runtime-monitor.service kata-runtime-monitor.socket 2>&1 | sort -u)" disabled
quietly systemd-analyze verify --man=no /usr/lib/systemd/system/kata-runtime-monitor.service

# What an administrator has set stays over an upgrade; so does what is enabled.
echo 'KATA_RUNTIME_MONITOR_OPTIONS="--verbose"' >/etc/default/kata-runtime-monitor
quietly systemctl --root=/ enable kata-runtime-monitor.service
quietly dpkg --install /mnt/next/kata-runtime_*.deb
is "$(dpkg-query -f '${Version}' -W kata-runtime)" "$version-2"
grep -q verbose /etc/default/kata-runtime-monitor
is "$(systemctl --root=/ is-enabled kata-runtime-monitor.service kata-runtime-monitor.socket | sort -u)" enabled

quietly dpkg --remove kata-runtime
[ -e /etc/default/kata-runtime-monitor ] && [ ! -e /usr/bin/kata-runtime ]
quietly dpkg --purge kata-runtime
is "$(find /usr/bin /usr/share/man /usr/share/doc /usr/share/bash-completion /usr/lib/systemd /etc /var/lib/systemd /var/lib/dpkg/info \
    -name '*kata-runtime*' 2>/dev/null)" ""
