#!/bin/sh
# Debian packages that pip cannot bring: bubblewrap confines the engines. As root they are installed; otherwise
# this says how, and the enclave itself refuses to start without what its contract demands.
set -eu
need=""
command -v bwrap >/dev/null 2>&1 || need="$need bubblewrap"
if [ "${1:-}" = test ]; then
  # A real TPM to test against.
  command -v swtpm >/dev/null 2>&1 || need="$need swtpm"
  # A real browser, with letters for Japanese.
  command -v chromium >/dev/null 2>&1 || need="$need chromium"
  [ -d /usr/share/fonts/opentype/noto ] || need="$need fonts-noto-cjk"
fi
[ -z "$need" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing Debian packages:$need"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need; } >/dev/null 2>&1 || {
    echo "error: could not install$need"; echo "hint: sudo apt-get install$need"; exit 1; }
else
  echo "error: missing Debian packages:$need"; echo "hint: sudo apt-get install$need"; exit 1
fi
