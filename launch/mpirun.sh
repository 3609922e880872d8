#!/usr/bin/env bash
# mpirun.sh -np N [--host hostA:2,hostB:2] python launch/train.py --data ... : N ranks over Open MPI 4.
set -euo pipefail
. "$(dirname "$0")/environment.sh"

options=(
    --bind-to none                     # otherwise two ranks share one core, and so do all their threads
    --map-by slot
    --mca pml ob1 --mca btl "^openib"  # plain TCP and shared memory: what Horovod is tested on
    --mca oob_tcp_keepalive_time 5     # a host that lost power ends the job within seconds,
    --mca oob_tcp_keepalive_intvl 2    # not after the minutes that are the default
    --mca oob_tcp_keepalive_probes 3
)
if ((EUID == 0)); then
    options+=(--allow-run-as-root) # in containers; mpirun refuses otherwise
fi
# mpirun hands on only what it is told to.
while IFS= read -r name; do
    case $name in
        PATH | LD_LIBRARY_PATH | PYTHONPATH | VIRTUAL_ENV | CUDA_* | HOROVOD_* | KERAS_* | NCCL_* | OMP_* | TF_* | XLA_*)
            options+=(-x "$name")
            ;;
    esac
done < <(compgen -e)

exec mpirun "${options[@]}" "$@" 2> >(without_notes)
