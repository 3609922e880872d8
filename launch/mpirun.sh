#!/usr/bin/env bash
# mpirun.sh -np N [-H hostA:2,hostB:2] python launch/train.py --data ... : N ranks by Open MPI 4 or 5, or by MPICH.
# Horovod must be built with the same MPI; without that: dist-loader launch --with mpirun --gloo launch/train.py ...
set -euo pipefail
. "$(dirname "$0")/environment.sh"

# By its whole path, mpirun tells the other hosts where it lies; one that pip has installed is found there in no other way.
mpirun=$(command -v mpirun) || { echo "mpirun.sh: there is no mpirun on PATH" >&2 && exit 2; }
# Unless told not to, Open MPI has two ranks share one core, and so do all their threads.
open_mpi=(--bind-to none --map-by slot --mca pml ob1 --mca btl "^openib") # TCP and shared memory: what Horovod is tested on
case $("$mpirun" --version 2>&1) in
    *"(Open MPI) 4."*) word=--mca ;;
    *"(Open MPI) 5."*) word=--prtemca ;;
    *HYDRA*) exec "$mpirun" -bind-to none -genvall "$@" 2> >(without_notes) ;;
    *) echo "mpirun.sh: mpirun is neither Open MPI 4 or 5 nor MPICH" >&2 && exit 2 ;;
esac
# A host that lost power ends the job within seconds, not after the minutes that are the default.
for setting in time:5 intvl:2 probes:3; do
    open_mpi+=($word "oob_tcp_keepalive_${setting%:*}" "${setting#*:}")
done
if ((EUID == 0)); then
    open_mpi+=(--allow-run-as-root) # in containers; mpirun refuses otherwise
fi
# mpirun hands on only what it is told to.
while IFS= read -r name; do
    case $name in
        PATH | LD_LIBRARY_PATH | PYTHONPATH | VIRTUAL_ENV | CUDA_* | HOROVOD_* | KERAS_* | NCCL_* | OMP_* | TF_* | XLA_*)
            open_mpi+=(-x "$name")
            ;;
    esac
done < <(compgen -e)

exec "$mpirun" "${open_mpi[@]}" "$@" 2> >(without_notes)
