#!/usr/bin/env bash
# horovodrun.sh -np N [-H hostA:2,hostB:2] python launch/train.py --data ... : N ranks that talk over Gloo, no MPI needed.
set -euo pipefail
. "$(dirname "$0")/environment.sh"

# --disable-cache: a host that was checked an hour ago may be gone now, and nothing is written to the home folder.
exec horovodrun --gloo --disable-cache "$@" 2> >(without_notes)
