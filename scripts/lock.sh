#!/bin/sh
# Re-make the hashed locks from requirements/*.in. Needs uv (`pip install uv`). run.lock constrains the others,
# so that every lock names the same versions.
set -eu
cd "$(dirname "$0")/../requirements"
lock() { uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 "$@"; }
lock dev.in -o dev.lock
grep -v '^ ' dev.lock | sed 's/ *\\$//' > .constraints.txt
for name in build run enclave owner; do lock "$name.in" -c .constraints.txt -o "$name.lock"; done
# The enclave carries its lock: it is part of what is measured.
mv enclave.lock ../src/kakoi/enclave/enclave.lock
rm -f .constraints.txt
