#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks that the files are whole, then starts the runner; without words: the test vector, timed.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
cd "$here"
if command -v sha256sum > /dev/null 2>&1; then
  sha256sum --quiet -c SHA256SUMS || { echo "run.sh: files are damaged; copy them again" >&2; exit 1; }
fi
cd - > /dev/null
if [ "$#" -eq 0 ]; then
  "$here/runner" test
  exec "$here/runner" time
fi
exec "$here/runner" "$@"
