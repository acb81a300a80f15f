"""Two nodes on one machine: network namespaces joined by a cable, where the system permits them; else two agents.

with two_nodes() as nodes:
    first = nodes[0].torchrun(*overrides)
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Node(NamedTuple):
    prefix: list[str]
    """What a command starts with to run on the node."""
    address: str
    interface: str
    number: int
    first_address: str

    def torchrun(self, output: Path, *program: str, port: int = 29507) -> subprocess.Popen[bytes]:
        """Start torchrun's agent here, in a process group of its own; `output` is added to."""
        command = [
            *self.prefix,
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint={self.first_address}:{port}", "--rdzv-id=tried"),
            f"--rdzv-conf=is_host={self.number == 0}",  # which a namespace cannot tell from the machine's name
            *(f"--local-addr={self.address}", *program),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": self.interface}
        # Otherwise an agent that stayed does not tell one that joins later where the processes meet.
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        with output.open("ab") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )


def kill(agent: subprocess.Popen[bytes]) -> None:
    """Take a node away: its agent and all that it started, at once."""
    if agent.poll() is None:
        children = _descendants(agent.pid)
        os.killpg(agent.pid, signal.SIGKILL)
        for child in children:  # torchrun gives each worker a session of its own
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
    agent.wait()


def _descendants(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict(map(int, line.split()) for line in listed.splitlines())
    found = [pid]
    for candidate in found:
        found += [child for child, parent in parents.items() if parent == candidate]
    return found[1:]


@contextmanager
def two_nodes() -> Iterator[list[Node]]:
    """Two nodes, in namespaces named after this process; `.prefix` is empty where there are none."""
    names = [f"depth-{os.getpid()}-{number}" for number in range(2)]
    try:
        if not _joined(names):
            yield [Node([], "127.0.0.1", "lo", number, "127.0.0.1") for number in range(2)]
            return
        yield [
            Node(["ip", "netns", "exec", name], f"10.77.0.{number + 1}", f"cable{number}", number, "10.77.0.1")
            for number, name in enumerate(names)
        ]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _joined(names: list[str]) -> bool:
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add cable0 netns {names[0]} type veth peer name cable1 netns {names[1]}"]
    for number, name in enumerate(names):
        commands += [f"-n {name} addr add 10.77.0.{number + 1}/24 dev cable{number}", f"-n {name} link set lo up"]
        commands += [f"-n {name} link set cable{number} up"]
    try:
        return all(not subprocess.run(["ip", *line.split()], capture_output=True).returncode for line in commands)
    except FileNotFoundError:
        return False
