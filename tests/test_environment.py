"""Shells, containers and schedulers: limits, half-set variables, and the signals that announce an end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import torch
from conftest import CPU, ROOT, TINY, load, posix

from system import devices, limits

SCRIPTS = ("augment.py", "train.py", "test.py", "predict.py", "demo.py", "app.py", "export.py")
GROUPS = "sys/fs/cgroup"


def run_train(new_data: Path, files: Path, *more: object, **environment: str) -> subprocess.CompletedProcess:
    arguments = ["--data", new_data, "--files", files, *TINY, "--epochs=1", "--crops=40", *more]
    return forked.finish("train.py", *arguments, environment=environment)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_starts_where_python_leaves_out_its_folder(script, tmp_path):
    command = [sys.executable, ROOT / script, "--help"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "RANK: is not set"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE: is 'two'"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "0"}, "MASTER_PORT: is not set"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}, "MASTER_ADDR: is not set"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "5"}, "RANK: is 5 in the environment, but has to be"),
        ({"LOCAL_RANK": "2", "WORLD_SIZE": "2", "RANK": "1"}, "LOCAL_RANK: is 2 in the environment"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "70000"}, "MASTER_PORT: is 70000"),
    ],
)
def test_variables_of_torchrun_that_are_half_there_are_named(variables, reason, new_data, tmp_path):
    done = run_train(new_data, tmp_path / "files", **variables)
    assert done.returncode == 2
    assert done.stderr.startswith(f"train.py: {reason}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "files").exists()


@posix
@pytest.mark.parametrize(
    ("name", "status", "line"), [("SIGTERM", 2, "was ended"), ("SIGINT", 130, "interrupted")]
)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_waits_for_others_can_be_ended(rank, name, status, line, new_data, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    arguments = ["--data", new_data, "--files", tmp_path / "files", *TINY]
    process = forked.start("train.py", *arguments, environment={**shared, "RANK": rank})
    time.sleep(1)  # it waits for minutes
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(20)
    assert process.returncode == status
    assert line in said.splitlines()[-1] and "Traceback" not in said
    assert not (tmp_path / "files").exists()


@pytest.mark.parametrize("variables", [{"LOCAL_RANK": ""}, {"LOCAL_RANK": "0"}])
def test_a_local_rank_alone_is_one_process(variables, new_data, tmp_path):
    done = run_train(new_data, tmp_path, **variables)
    assert done.returncode == 0, done.stderr


@posix
def test_too_few_open_files_are_told_with_the_remedy_and_the_limit_is_raised_where_it_may_be(
    new_data, tmp_path
):
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    arguments = ["--data", new_data, "--files", tmp_path, *TINY, "--epochs=1", "--crops=80", "--workers=8"]
    # the limit that a process may raise, or both
    raised, told = (
        forked.finish("train.py", *arguments, limits={"RLIMIT_NOFILE": (64, hard)}) for hard in (most, 64)
    )
    assert raised.returncode == 0, raised
    assert told.returncode == 2 and "Traceback" not in told.stderr
    reason = "train.py: too many open files; raise the limit with ulimit -n 4096, or use --workers 0"
    assert reason in told.stderr


@posix
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGTERM"])
def test_what_a_terminal_or_a_scheduler_sends_keeps_the_steps(name, new_data, tmp_path):
    arguments = ["--data", new_data, "--files", tmp_path, *TINY, "--epochs=1", "--crops=400000"]
    process = forked.start("train.py", *arguments)
    forked.wait_until((tmp_path / "split.json").exists, process)
    time.sleep(1)  # some steps
    process.send_signal(getattr(signal, name))
    process.send_signal(signal.SIGTERM)  # as schedulers do soon after
    _, words = process.communicate(60)
    assert process.returncode == 130
    assert "all steps are kept" in words
    assert load(tmp_path / "last.pth")["losses"]


@pytest.mark.parametrize(("value", "threads"), [("abc", 2), ("", 2), ("-1", 2), ("8", 8), ("8,4", 8)])
def test_a_number_of_threads_that_is_none_is_not_the_users_choice(value, threads, monkeypatch):
    now = [8]
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: now.__setitem__(0, number))
    devices.limit_threads()
    assert now == [threads]


def write_group(root: Path, line: str, files: dict[str, str]) -> None:
    for name, text in {"proc/self/cgroup": line, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/\n", {f"{GROUPS}/cpu.max": "150000 100000\n"}, 2),  # a part of a core counts as one
        ("0::/\n", {f"{GROUPS}/cpu.max": "max 100000\n"}, 64),
        ("0::/a/b\n", {f"{GROUPS}/a/cpu.max": "300000 100000\n", f"{GROUPS}/a/b/cpu.max": "max 1\n"}, 3),
        (
            "4:cpu,cpuacct:/docker/x\n",
            {f"{GROUPS}/cpu/cpu.cfs_quota_us": "50000\n", f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "4:cpu:/\n2:memory:/\n",
            {f"{GROUPS}/cpu/cpu.cfs_quota_us": "-1\n", f"{GROUPS}/cpu/cpu.cfs_period_us": "100000\n"},
            64,
        ),
    ],
)
def test_a_container_has_the_cores_of_its_limit(line, files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "SYSTEM", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    write_group(tmp_path, line, files)
    assert limits.usable_cores() == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_has_the_cores_of_its_affinity():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    code += "from system.limits import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("load", "threads", "set_to"), [(0.1, 2, None), (1.0, 2, 1), (3.2, 2, 1), (1.0, 1, None), (1.1, 4, 3)]
)
def test_a_training_beside_other_programs_is_told_how_many_threads_are_faster(
    load, threads, set_to, monkeypatch
):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0), raising=False)
    monkeypatch.setattr(devices, "usable_cores", lambda: max(2, threads))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    said = devices.advise_threads(CPU)
    assert (f"OMP_NUM_THREADS={set_to} " in said) if set_to else said == ""


def test_files_that_were_read_leave_the_memory_of_a_container_free(tmp_path, monkeypatch):
    """Linux keeps their copies until others need the memory, so that after many photographs all seems used."""
    monkeypatch.setattr(devices, "CONTAINER", tmp_path)
    for name, text in (
        ("max", "8000"),
        ("current", "7900"),
        ("stat", "anon 900\nactive_file 3000\ninactive_file 4000\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert devices.free_memory() == 7100
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory() > 8000, "that of the computer"
