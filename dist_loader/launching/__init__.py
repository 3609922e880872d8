"""Starting a job's ranks on one machine or many, watching over them, and starting them again after a failure.

Nothing here imports TensorFlow, Horovod or MPI. The ranks are started by horovodrun, mpirun or srun; what is added is
the right command for them, a rank's own exit code and name, and an end that leaves nothing behind.
"""
