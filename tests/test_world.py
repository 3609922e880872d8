"""Who am I: `World` by hand, and found from what launchers really set."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys

import pytest

from dist_loader.errors import ConfigError
from dist_loader.world import World

ALONE = World(rank=0, size=1, local_rank=0, local_size=1)


def horovod(rank=1, size=4, local_rank=1, local_size=2):
    """What `horovodrun --gloo` sets (horovod/runner/gloo_run.py)."""
    return {
        "HOROVOD_HOSTNAME": "node1",
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(size),
        "HOROVOD_LOCAL_RANK": str(local_rank),
        "HOROVOD_LOCAL_SIZE": str(local_size),
        "HOROVOD_CROSS_RANK": "0",
        "HOROVOD_CROSS_SIZE": "2",
        "HOROVOD_CONTROLLER": "gloo",
    }


def open_mpi(rank=1, size=4, local_rank=1, local_size=2):
    """What Open MPI 4's mpirun sets."""
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local_rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(local_size),
        "OMPI_COMM_WORLD_NODE_RANK": str(local_rank),
        "OMPI_UNIVERSE_SIZE": str(size),
        "PMIX_RANK": str(rank),
    }


def slurm(rank=1, size=4, local_rank=1, per_node="2(x2)", node=0, step="0"):
    """What srun sets for a task of a step."""
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": step,
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(local_rank),
        "SLURM_NODEID": str(node),
        "SLURM_NTASKS": str(size),
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_TASKS_PER_NODE": per_node,
        "SLURM_STEP_TASKS_PER_NODE": per_node,
    }


def slurm_batch(size=4, per_node="2(x2)"):
    """What a batch script sees: counts of the job, process 0, no step."""
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": str(size),
        "SLURM_TASKS_PER_NODE": per_node,
    }


class TestByHand:
    def test_is_a_frozen_value(self):
        world = World(1, 4, 1, 2)
        assert (world.rank, world.size, world.local_rank, world.local_size) == (1, 4, 1, 2)
        assert world == World(rank=1, size=4, local_rank=1, local_size=2)
        assert hash(world) == hash(World(1, 4, 1, 2))
        assert pickle.loads(pickle.dumps(world)) == copy.deepcopy(world) == world
        with pytest.raises(dataclasses.FrozenInstanceError):
            world.rank = 0

    def test_the_launcher_is_a_label_only(self):
        assert World(0, 1, 0, 1).launcher == "none"
        assert World(0, 1, 0, 1, launcher="srun") == World(0, 1, 0, 1)

    @pytest.mark.parametrize("rank", range(4))
    def test_only_rank_0_is_chief(self, rank):
        assert World(rank, 4, 0, 1).chief is (rank == 0)

    @pytest.mark.parametrize(
        "values",
        [
            (4, 4, 0, 1),
            (-1, 4, 0, 1),
            (0, 0, 0, 1),
            (0, 4, 2, 2),
            (0, 4, -1, 2),
            (0, 4, 0, 0),
            (0, 4, 0, 5),
            (0, -1, 0, 1),
        ],
    )
    def test_impossible_values_are_errors_that_print_them(self, values):
        with pytest.raises(ConfigError) as error:
            World(*values)
        for name, value in zip(("rank", "size", "local_rank", "local_size"), values, strict=True):
            assert f"{name}={value}" in str(error.value)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("bad", [True, 1.0, "1", None])
    @pytest.mark.parametrize("place", range(4))
    def test_only_ints_are_taken(self, bad, place):
        values = [0, 2, 0, 2]
        values[place] = bad
        with pytest.raises(ConfigError, match="must be an int"):
            World(*values)


class TestDetect:
    def test_nothing_set_is_one_process(self):
        world = World.detect({"PATH": "/bin", "HOME": "/root"})
        assert world == ALONE
        assert world.launcher == "none"

    def test_the_environment_of_the_process_is_the_default(self, monkeypatch):
        for name in list(os.environ):
            if name.startswith(("HOROVOD_", "OMPI_", "PMI_", "MPI_", "SLURM_")):
                monkeypatch.delenv(name)
        for name, value in horovod().items():
            monkeypatch.setenv(name, value)
        assert World.detect() == World(1, 4, 1, 2)

    @pytest.mark.parametrize(
        ("env", "launcher"),
        [
            (horovod(), "horovodrun"),
            (open_mpi(), "mpirun"),
            ({"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}, "mpiexec"),
            ({"PMI_RANK": "1", "PMI_SIZE": "4", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "2"}, "mpiexec"),
            (slurm(), "srun"),
        ],
        ids=["horovodrun", "mpirun", "mpich", "cray", "srun"],
    )
    def test_each_launcher(self, env, launcher):
        before = dict(env)
        world = World.detect(env)
        assert world == World(1, 4, 1, 2)
        assert world.launcher == launcher
        assert env == before

    def test_tuning_knobs_of_horovod_are_no_launcher(self):
        assert (
            World.detect({"HOROVOD_FUSION_THRESHOLD": "0", "HOROVOD_TIMELINE": "/t", "HOROVOD_CONTROLLER": "mpi"})
            == ALONE
        )

    @pytest.mark.parametrize(("around", "launcher"), [(open_mpi(), "mpirun"), (slurm(), "srun")])
    def test_ranks_that_meet_by_gloo_under_another_launcher(self, around, launcher):
        world = World.detect(horovod() | around)
        assert (world.rank, world.size, world.launcher) == (1, 4, launcher)
        assert World.detect(horovod() | slurm(rank=0, size=1, local_rank=0, per_node="1")).launcher == "horovodrun"

    def test_horovodrun_over_mpi_is_told_from_mpirun(self):
        added = {  # read off the environment of a rank under `horovodrun --mpi`, Horovod 0.28.1
            "OMPI_MCA_btl": "^openib",
            "OMPI_MCA_btl_tcp_if_include": "eth0,lo",
            "OMPI_MCA_orte_tag_output": "1",
            "OMPI_MCA_pml": "ob1",
            "OMPI_MCA_rmaps_base_mapping_policy": "slot",
            "NCCL_SOCKET_IFNAME": "eth0,lo",
        }
        assert World.detect(open_mpi() | added).launcher == "horovodrun"
        assert World.detect(open_mpi() | added) == World(1, 4, 1, 2)
        by_hand = {name: added[name] for name in ("OMPI_MCA_btl", "OMPI_MCA_pml", "OMPI_MCA_rmaps_base_mapping_policy")}
        assert World.detect(open_mpi() | by_hand).launcher == "mpirun"

    @pytest.mark.parametrize(
        "env",
        [
            {"HOROVOD_RANK": "2", "HOROVOD_SIZE": "3"},
            {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"},
            {"PMI_RANK": "2", "PMI_SIZE": "3"},
            {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_STEP_ID": "0"},
        ],
    )
    def test_no_local_variables_mean_one_host(self, env):
        assert World.detect(env) == World(2, 3, 2, 3)


class TestSlurm:
    def test_a_batch_script_is_one_process(self):
        assert World.detect(slurm_batch()) == ALONE

    @pytest.mark.parametrize("special", [0xFFFFFFFA, 0xFFFFFFFB, 0xFFFFFFFC])
    def test_interactive_shells_and_batch_steps_are_one_process(self, special):
        assert World.detect(slurm_batch() | {"SLURM_STEP_ID": str(special)}) == ALONE

    def test_mpirun_in_a_batch_script(self):
        world = World.detect(slurm_batch() | open_mpi())
        assert world == World(1, 4, 1, 2)
        assert world.launcher == "mpirun"

    @pytest.mark.parametrize("rank", [0, 1])
    def test_mpich_in_a_batch_script_is_one_job_on_every_rank(self, rank):
        env = slurm_batch(size=4) | {"PMI_RANK": str(rank), "PMI_SIZE": "4"}
        assert (World.detect(env).rank, World.detect(env).size, World.detect(env).launcher) == (rank, 4, "mpiexec")

    def test_a_step_without_a_number_is_known_by_its_process(self):
        env = slurm(rank=3)
        del env["SLURM_STEP_ID"]
        assert World.detect(env) == World(3, 4, 1, 2)

    def test_the_older_name_of_the_step_number(self):
        env = slurm(rank=0, local_rank=0)
        env["SLURM_STEPID"] = env.pop("SLURM_STEP_ID")
        assert World.detect(env) == World(0, 4, 0, 2)

    def test_counts_of_the_step_go_before_those_of_the_job(self):
        env = slurm(rank=0, size=2, local_rank=0, per_node="1(x2)") | {
            "SLURM_NTASKS": "8",
            "SLURM_TASKS_PER_NODE": "4(x2)",
        }
        assert World.detect(env) == World(0, 2, 0, 1)

    @pytest.mark.parametrize("inner", [horovod(), open_mpi()])
    def test_a_launcher_inside_of_a_task_wins(self, inner):
        assert World.detect(slurm(rank=0, size=1, local_rank=0, per_node="1") | inner) == World(1, 4, 1, 2)

    def test_an_outer_task_that_makes_no_sense_does_not_disturb(self):
        assert World.detect(slurm(per_node="?", rank=9) | open_mpi()) == World(1, 4, 1, 2)

    def test_pmi_set_by_srun_itself(self):
        pmi = {"PMI_RANK": "1", "PMI_SIZE": "4", "PMI_FD": "9"}
        world = World.detect(slurm() | pmi)
        assert world == World(1, 4, 1, 2)
        assert world.launcher == "srun"

    def test_a_launcher_inside_of_a_task_wins_over_pmi_set_by_srun(self):
        pmi = {"PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "9"}
        world = World.detect(slurm(rank=0, size=1, local_rank=0, per_node="1") | pmi | horovod())
        assert world == World(1, 4, 1, 2)

    @pytest.mark.parametrize(
        ("per_node", "node", "local_size"),
        [
            ("4", 0, 4),
            ("2(x3),1", 0, 2),
            ("2(x3),1", 2, 2),
            ("2(x3),1", 3, 1),
            ("1,2,3(x2)", 3, 3),
            ("2(x1000000)", 7, 2),
        ],
    )
    def test_tasks_per_node(self, per_node, node, local_size):
        world = World.detect(slurm(rank=2, size=9, local_rank=0, per_node=per_node, node=node))
        assert world == World(2, 9, 0, local_size)

    @pytest.mark.parametrize("per_node", ["", "x", "2(x)", "2(3)", "2;1", "-1", "2(x3),"])
    def test_a_broken_list_of_tasks_is_an_error(self, per_node):
        with pytest.raises(ConfigError, match="SLURM_STEP_TASKS_PER_NODE="):
            World.detect(slurm(per_node=per_node))

    def test_a_node_outside_of_the_list_is_an_error(self):
        with pytest.raises(ConfigError, match="SLURM_NODEID=4"):
            World.detect(slurm(per_node="2(x3),1", node=4))

    def test_an_uneven_list_needs_the_node(self):
        env = slurm(per_node="2,1", size=3)
        del env["SLURM_NODEID"]
        with pytest.raises(ConfigError, match="SLURM_NODEID is not set"):
            World.detect(env)

    @pytest.mark.parametrize("missing", ["SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"])
    def test_half_of_the_local_pair_is_an_error(self, missing):
        env = slurm()
        del env[missing], env["SLURM_TASKS_PER_NODE"]
        with pytest.raises(ConfigError, match=missing):
            World.detect(env)


class TestContradictions:
    @pytest.mark.parametrize(
        "full",
        [
            horovod(),
            open_mpi(),
            {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
        ],
        ids=["horovodrun", "mpirun", "mpich"],
    )
    @pytest.mark.parametrize("ending", ["RANK", "SIZE", "LOCAL"])
    def test_half_of_a_pair_is_an_error_that_names_both(self, full, ending):
        names = [name for name in full if "LOCAL" in name] if ending == "LOCAL" else []
        missing = names[-1] if names else next(n for n in full if n.endswith(f"_{ending}") and "LOCAL" not in n)
        env = {name: value for name, value in full.items() if name != missing}
        with pytest.raises(ConfigError, match=missing) as error:
            World.detect(env)
        assert "is set but" in str(error.value)
        assert "unset" in str(error.value)

    @pytest.mark.parametrize("value", ["", "one", "1.0", "0x1", " 1", "1_0", "١", "9" * 5000])  # noqa: RUF001
    def test_what_is_not_a_number_is_an_error(self, value):
        with pytest.raises(ConfigError, match="HOROVOD_RANK="):
            World.detect(horovod() | {"HOROVOD_RANK": value})

    @pytest.mark.parametrize(
        "env",
        [
            horovod(rank=4),
            horovod(rank=-1),
            open_mpi(local_rank=2),
            open_mpi(size=0),
            slurm(rank=4),
            slurm(per_node="5"),
        ],
    )
    def test_the_impossible_is_an_error_that_names_the_variables(self, env):
        with pytest.raises(ConfigError, match=r"(HOROVOD|OMPI_COMM_WORLD|SLURM)_\w+=-?\d"):
            World.detect(env)

    @pytest.mark.parametrize("difference", [{"rank": 2}, {"size": 8}])
    def test_two_launchers_that_disagree_are_an_error(self, difference):
        with pytest.raises(ConfigError) as error:
            World.detect(horovod() | open_mpi(**difference))
        assert "HOROVOD_RANK=1" in str(error.value)
        assert "OMPI_COMM_WORLD_RANK=" in str(error.value)
        assert "unset" in str(error.value)
        assert "\n" not in str(error.value)

    def test_two_launchers_that_agree_are_fine(self):
        pmi = {"PMI_RANK": "1", "PMI_SIZE": "4"}
        assert World.detect(horovod() | open_mpi() | pmi) == World(1, 4, 1, 2)


def test_importing_is_light():
    code = "import sys, dist_loader.world; print([m for m in ('numpy', 'tensorflow', 'mpi4py') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
