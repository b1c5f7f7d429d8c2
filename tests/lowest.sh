#!/bin/sh
# Install exactly the lowest versions that requirements.txt admits, and run the tests with them.
# Usage: tests/lowest.sh [folder for the virtual environment] [options of pytest]
set -e
cd "$(dirname "$0")/.."
venv="${1:-.venv-lowest}"
[ $# -eq 0 ] || shift
${PYTHON:-python3} -m venv "$venv"
sed -n 's/ *#.*//; s/>=/==/p' requirements.txt > "$venv/lowest.txt"
"$venv/bin/pip" install -r tests/requirements.txt -c "$venv/lowest.txt"
"$venv/bin/python" -m pytest "$@"
