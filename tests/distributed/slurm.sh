#!/usr/bin/env bash
# slurm.sh CMD [ARG...]: run CMD with a real Slurm over the hosts that multihost.sh has made, slurmctld on the controller.
#
#   sudo multihost.sh -n 2 -- slurm.sh bash -c 'srun -N2 hostname'
#
# Each host is a node with two cores and two GPUs that are only counted. A job in partition `urgent` takes the nodes from
# those in `main`, which get SIGTERM and 20 s. CMD has SLURM_CONF; the daemons' logs are in $MH_DIR/slurm. Nothing is left behind: all of it dies with multihost.sh. Exit status = CMD's; 77 when Slurm is not
# installed (apt-get install --no-install-recommends slurmd slurmctld slurm-client munge), 70 when it does not start.
set -euo pipefail

(($#)) || { echo "slurm.sh: no command" >&2; exit 64; }
for program in munged slurmctld slurmd sinfo; do
  command -v $program >/dev/null || { echo "slurm.sh: $program not found" >&2; exit 77; }
done

S=${MH_DIR:?run it inside of multihost.sh}/slurm
mkdir -p $S/state
export SLURM_CONF=$S/slurm.conf
# cred_expire is also how long a job waits that is queued again. TmpFS: PMIx would use the same folder on both nodes.
cat >$S/slurm.conf <<CONF
ClusterName=mh
SlurmctldHost=controller
AuthType=auth/munge
AuthInfo=socket=$S/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=5
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$S/state
SlurmdSpoolDir=$S/spool.%n
TmpFS=$S/tmp.%n
SlurmctldPidFile=$S/slurmctld.pid
SlurmdPidFile=$S/slurmd.%n.pid
SlurmctldLogFile=$S/slurmctld.log
SlurmdLogFile=$S/slurmd.%n.log
ReturnToService=2
SlurmdTimeout=20
InactiveLimit=0
KillWait=20
NodeName=${MH_HOSTS// /,} CPUs=2 Gres=gpu:2 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
CONF
mknod $S/gpu0 c 1 3 && mknod $S/gpu1 c 1 3
echo "Name=gpu File=$S/gpu[0-1]" >$S/gres.conf

head -c 128 /dev/urandom >$S/munge.key
chmod 600 $S/munge.key
munged --force --key-file=$S/munge.key --socket=$S/munge.socket --pid-file=$S/munge.pid --log-file=$S/munged.log \
  --seed-file=$S/munge.seed
slurmctld -D -f $SLURM_CONF >$S/slurmctld.out 2>&1 &
for host in $MH_HOSTS; do
  mkdir -p $S/spool.$host $S/tmp.$host
  mh on $host slurmd -D -N $host -f $SLURM_CONF >$S/slurmd.$host.out 2>&1 &
done
for ((n = 0; n < 150; n++)); do
  idle=$(sinfo --noheader --states=idle --format=%D 2>/dev/null) && ((${idle:-0} == $(wc -w <<<"$MH_HOSTS"))) && break
  sleep 0.2
done
if ((n == 150)); then
  echo "slurm.sh: the nodes did not come up within 30 s" >&2
  tail -n 20 $S/*.out $S/*.log >&2
  exit 70
fi
exec "$@"
