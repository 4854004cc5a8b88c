"""A single-node Apache Kafka broker (KRaft) on a loopback port, without Docker: to try things out, and for the tests.

    python3 deploy/kafka/broker.py --port 9092 --data state/kafka

Runs in the foreground until Ctrl-C or SIGTERM, and goes on with the same data folder. The first start fetches Kafka's
jars from Maven Central (about 45 MB, a minute). Needs Java 17 and Maven and nothing of Driftline. Loopback only, no
authentication, replication 1: not for production.
"""

import argparse
import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
JARS = HERE / "jars"
READY = "Kafka Server started"
"""The line of the broker's output that says clients may connect."""
PACKAGES = {"java": "openjdk-17-jre-headless", "mvn": "maven"}

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}/log
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=4194304
"""


class SetupError(Exception):
    """Something is missing on this machine; the message names the package."""


def main() -> None:
    """Fetch, format on the first start, and become the broker."""
    options = _options()
    try:
        fetch_jars()
    except SetupError as error:
        sys.exit(str(error))
    data = options.data.resolve()
    controller_port = options.controller_port or options.port + 1
    properties = write_properties(data, options.port, controller_port, options.property)
    if not (data / "log" / "meta.properties").exists():
        format_storage(properties)
    if options.die_with_parent:
        _die_with_parent()
    os.execvp("java", java("kafka.Kafka", str(properties), heap=options.heap))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9092, help="where clients connect (default 9092)")
    parser.add_argument("--controller-port", type=int, help="the broker's own second port (default PORT + 1)")
    parser.add_argument("--data", type=Path, default=Path("state/kafka"), help="where the topics are kept")
    parser.add_argument("--heap", default="512m", help="Java heap (default 512m)")
    parser.add_argument("--property", action="append", default=[], metavar="KEY=VALUE", help="of server.properties")
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the process that started it ends")
    return parser.parse_args()


def fetch_jars() -> None:
    """Put the jars of pom.xml into jars/, once; several processes may call this at the same time.

    SetupError if Java or Maven is missing, or Maven fails.
    """
    _require("java")
    wanted = hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()
    with (HERE / "pom.xml").open() as pom:
        fcntl.flock(pom, fcntl.LOCK_EX)
        if (JARS / wanted).exists():
            return
        _require("mvn")
        fresh = HERE / f"jars.{uuid.uuid4().hex[:8]}"
        _copy_dependencies(fresh)
        (fresh / wanted).touch()
        shutil.rmtree(JARS, ignore_errors=True)
        fresh.rename(JARS)


def _copy_dependencies(folder: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise SetupError(f"Maven could not fetch Kafka's jars ({' '.join(command)}):\n{done.stdout[-2000:]}")


def _require(program: str) -> None:
    if shutil.which(program) is None:
        raise SetupError(
            f"a Kafka broker needs {program}, which is not on the PATH. On Debian or Ubuntu: "
            f"apt-get install {' '.join(PACKAGES.values())}. Or name a running broker: KAFKA_BOOTSTRAP=HOST:PORT"
        )


def write_properties(data: Path, port: int, controller_port: int, more: list[str]) -> Path:
    """The broker's configuration in the data folder; written at every start. Lines of `more` win over ours."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / "server.properties"
    ours = PROPERTIES.format(data=data, port=port, controller_port=controller_port)
    path.write_text(ours + "".join(f"{line}\n" for line in more), encoding="utf-8")
    return path


def format_storage(properties: Path) -> None:
    """Make the data folder a cluster of one, with an id of its own."""
    cluster = uuid.uuid4().hex[:22]
    command = java("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(properties))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def java(main_class: str, *arguments: str, heap: str = "256m") -> list[str]:
    """The command line of a main class out of jars/, sized for a small machine."""
    flags = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    flags += [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", "-cp", f"{JARS}/*"]
    return ["java", *flags, main_class, *arguments]


def _die_with_parent() -> None:
    """Linux: SIGTERM when the starting process ends, however it ends. Holds across exec."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM, 0, 0, 0)


if __name__ == "__main__":
    main()
