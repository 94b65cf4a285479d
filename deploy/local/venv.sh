#!/usr/bin/env bash
# Makes .venv with everything in it, or brings it up to date: deploy/local/venv.sh STAMP
# The stamp is touched last, so that an interrupted run is done again.
set -euo pipefail
stamp=$1
constraints=deploy/constraints.txt

fail() { echo "make: $*" >&2; exit 1; }

# Two makes at once do it one after the other. The lock is on this file, which is there already.
if command -v flock >/dev/null; then
  exec 9<"${BASH_SOURCE[0]}"
  flock 9
  # What the other one has made is ours as well.
  [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt "$constraints" ] && [ "$stamp" -nt "${BASH_SOURCE[0]}" ] && exit 0
fi

python=
for name in python3 python3.14 python3.13 python3.12 python3.11; do
  if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$name; break; fi
done
[ -n "$python" ] || fail "python3 not found, or older than 3.11: install Python 3.11 or newer"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python cannot make virtual environments: install its venv package (python3-venv)"
command -v java >/dev/null || [ -n "${JAVA_HOME:-}" ] ||
  fail "java not found: install Java 17 or newer (openjdk-17-jre-headless); Kafka runs on it"
command -v mvn >/dev/null || fail "mvn not found: install Maven (maven), which fetches the Kafka broker once"

# An environment whose interpreter has gone, or was another version's, is made anew.
version='import sys; print(sys.version_info[:2])'
if [ "$(.venv/bin/python -c "$version" 2>/dev/null)" != "$("$python" -c "$version")" ]; then
  echo "making .venv ($("$python" --version))"
  "$python" -m venv --clear .venv
fi

install() {
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint "$constraints" --editable ".[$1,local,dev]"
}

can_compile() {
  command -v cc >/dev/null && command -v pg_config >/dev/null &&
    [ -e "$(pg_config --includedir)/libpq-fe.h" ] &&
    [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]
}

echo "installing the packages of pyproject.toml"
if can_compile && install c; then
  used=compiled
else
  # psycopg takes a compiled half that is there, even one of another version.
  .venv/bin/python -m pip uninstall --quiet --yes psycopg-c 2>/dev/null || true
  install binary
  used=prebuilt
fi
.venv/bin/python -c 'import psycopg; assert psycopg.pq.__impl__ in ("c", "binary")' ||
  fail "psycopg does not run its C implementation; remove .venv and try again"
echo "psycopg: C implementation, $used"
touch "$stamp"
