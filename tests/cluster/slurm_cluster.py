"""A SLURM of one node, this machine, without systemd and without accounting; for trying the launcher.

    python tests/cluster/slurm_cluster.py /tmp/slurm -- sinfo     # starts it, runs a command in it, ends it

Needs Debian's slurm-wlm and munge (`apt-get install slurm-wlm munge`), and root, as slurmd does.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CONFIGURATION = """
ClusterName=tried
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
KillWait=5
MinJobAge=600
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here."""
    if lacking := [program for program in PROGRAMS if _found(program) is None]:
        return f"needs SLURM ({', '.join(lacking)} not installed: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "needs root, to start slurmd"


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which SLURM's programs and submitit find the cluster; its files are in `folder`.

    Raises:
        RuntimeError: it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    ports = _free_ports(2)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            folder=folder,
            port=ports[0],
            slurmd_port=ports[1],
            cpus=os.cpu_count(),
        )
    )
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munged = [f"--socket={folder}/munge.socket", f"--key-file={key}", f"--pid-file={folder}/munged.pid"]
    munged += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed", "--foreground", "--force"]
    daemons = []
    try:
        for program, *arguments in (["munged", *munged], ["slurmctld", "-D"], ["slurmd", "-D"]):
            with (folder / f"{program}.out").open("wb") as output:
                path = _found(program)
                assert path is not None
                daemons.append(
                    subprocess.Popen(
                        [path, *arguments], env=environment, stdout=output, stderr=output, start_new_session=True
                    )
                )
            time.sleep(1)
        _wait_for_node(environment, folder)
        yield environment
    finally:
        if len(daemons) == 3:
            subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, check=False)
            subprocess.run(
                ["scancel", "--user=root", "--signal=KILL"], env=environment, capture_output=True, check=False
            )
            time.sleep(2)
        for daemon in reversed(daemons):
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGTERM)
        for daemon in reversed(daemons):
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()


def _wait_for_node(environment: dict[str, str], folder: Path) -> None:
    said = ""
    for _ in range(40):
        shown = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        said = shown.stdout.strip() or shown.stderr.strip()
        if said == "idle":
            return
        time.sleep(0.5)
    logs = "".join(path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"SLURM did not start: {said}\n{logs}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    if (reason := missing()) is not None:
        sys.exit(reason)
    with slurm_cluster(Path(sys.argv[1]).absolute()) as environment:
        sys.exit(subprocess.run(sys.argv[sys.argv.index("--") + 1 :], env=environment, check=False).returncode)
