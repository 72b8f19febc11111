#!/usr/bin/env bash
# Brings what a fresh Debian or Ubuntu machine lacks. As root it installs; otherwise it says what to install.
#   setup.sh python PYTHON VENV      a virtual environment with pip
#   setup.sh system CMD:PACKAGE …    programs, or files by their path, by Debian package
#   setup.sh unpacked DIR CMD:PACKAGE …   the same without installing: the package's files below DIR. No service starts
set -euo pipefail

apt_install() {
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: missing on this machine: $*" >&2
    echo "setup: install with: sudo apt-get install $*" >&2
    exit 2
  fi
  export DEBIAN_FRONTEND=noninteractive
  if ! apt-get install -y -qq --no-install-recommends "$@" >/tmp/vestibule-apt.log 2>&1; then
    apt-get update -qq >/tmp/vestibule-apt.log 2>&1 || true
    apt-get install -y -qq --no-install-recommends "$@" >/tmp/vestibule-apt.log 2>&1 || {
      echo "setup: apt-get could not install: $*" >&2
      tail -5 /tmp/vestibule-apt.log >&2
      exit 2
    }
  fi
}

case "${1:-}" in
python)
  python=$2 venv=$3
  if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup: Python 3.11 or newer is needed (found: ${python:-none}); name it with PYTHON=" >&2
    exit 2
  fi
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_install "python$version-venv"
  fi
  "$python" -m venv "$venv"
  ;;
system)
  shift
  missing=()
  for item in "$@"; do
    name=${item%%:*}
    case "$name" in
    /*) [ -e "$name" ] || missing+=("${item#*:}") ;;
    *) command -v "$name" >/dev/null || missing+=("${item#*:}") ;;
    esac
  done
  [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
  ;;
unpacked)
  folder=$2
  shift 2
  for item in "$@"; do
    name=${item%%:*} package=${item#*:}
    if command -v "$name" >/dev/null || [ -x "$folder/usr/bin/$name" ]; then
      continue
    fi
    fetched=$(mktemp -d)
    chmod 755 "$fetched"
    mkdir -p "$folder"
    if ! (cd "$fetched" && apt-get download -qq "$package" >/dev/null 2>&1); then
      apt-get update -qq >/dev/null 2>&1 || true
      (cd "$fetched" && apt-get download -qq "$package" >/dev/null 2>&1) || true
    fi
    if ! dpkg -x "$fetched"/*.deb "$folder" 2>/dev/null; then
      echo "setup: the Debian package $package could not be fetched; tests that need $name are left out" >&2
    fi
    rm -rf "$fetched"
  done
  ;;
*)
  echo "usage: setup.sh python PYTHON VENV | system CMD:PACKAGE … | unpacked DIR CMD:PACKAGE …" >&2
  exit 2
  ;;
esac
