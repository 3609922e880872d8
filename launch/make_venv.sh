#!/bin/sh
# make_venv.sh DIR [PYTHON]: a virtual environment with pip in it, without root, or one line that says what is missing.
set -eu
dir=$1
wanted=${2:-}

fail() {
    echo "make_venv: $*" >&2
    exit 2
}

# The first of python3.11 and python3 that runs and is 3.11.
pick_python() {
    for candidate in ${wanted:+"$wanted"} python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        [ -z "$wanted" ] || break
    done
    fail "no Python 3.11 found${wanted:+ at $wanted}; install it, or name one: make PYTHON=/path/to/python3.11"
}

python=$(pick_python)
if [ -e "$dir" ] && [ ! -e "$dir/pyvenv.cfg" ] && [ -n "$(ls -A "$dir")" ]; then
    fail "$dir exists and is no virtual environment; move it away"
fi
rm -rf "$dir"

if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv "$dir"
elif "$python" -m pip --version >/dev/null 2>&1; then
    # Debian without python3-venv: the venv module works, only the copy of pip that goes in is packaged apart.
    "$python" -m venv --without-pip "$dir"
    "$python" -m pip --python "$dir/bin/python" --quiet install pip
elif command -v uv >/dev/null 2>&1; then
    uv venv --quiet --seed --python "$python" "$dir"
else
    fail "$python has neither ensurepip nor pip, so no environment can be made: apt install python3.11-venv"
fi
