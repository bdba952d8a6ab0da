#!/usr/bin/env bash
# Install what is missing of the named Debian packages, as root or with sudo; say the command otherwise.
set -euo pipefail
# Where there is no dpkg, or the program came another way, the program itself is the answer.
present() {
  dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' && return 0
  case "$1" in
    chromium) command -v chromium || command -v chromium-browser ;;
    iproute2) command -v ss ;;
    nftables) command -v nft ;;
    msitools) command -v msibuild ;;
    wine | wine64) command -v wine ;;
    openssh-server) [ -x /usr/sbin/sshd ] ;;
    openssl | wixl | gcc | pebble) command -v "$1" ;;
    *) false ;;
  esac >/dev/null
}
missing=()
for package in "$@"; do
  present "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
command=(apt-get install -y --no-install-recommends "${missing[@]}")
if ! command -v apt-get >/dev/null; then
  echo "Needed and not found: ${missing[*]}. Install them with your system's package manager." >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then
  sudo=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  sudo=(sudo -n)
else
  echo "Needed and not installed: ${missing[*]}. Run: sudo apt-get update && sudo ${command[*]}" >&2
  exit 1
fi
echo "Installing ${missing[*]} …" >&2
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "${command[@]}" -qq >/dev/null
