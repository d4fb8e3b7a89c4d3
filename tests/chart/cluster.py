"""A namespace of a Kubernetes cluster, and Helm and kubectl pointed at it."""

import json
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from tests.chart.tools import run
from tests.image.engine import Engine
from tests.servers import CannotRun

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "helm" / "tidemark"
RELEASE = "t"
WORKERS = "t-tidemark"
PARTITIONS = 8

_LOAD_S = 300
_RESTART_S = 90
_POLL_S = 0.2


class Cluster:
    """The namespace enforces the restricted Pod Security Standard; `with` makes it, and deletes it in the end."""

    def __init__(self, helm: str) -> None:
        if not os.environ.get("KUBECONFIG") or shutil.which("kubectl") is None:
            raise CannotRun("KUBECONFIG names no cluster, or there is no kubectl")
        self._helm = helm
        self.namespace = f"tidemark-test-{uuid4().hex[:8]}"

    def __enter__(self) -> Self:
        self.kubectl("create", "namespace", self.namespace)
        self.kubectl("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted")
        return self

    def __exit__(self, *_: object) -> None:
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")

    # --- what it runs

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 180) -> str:
        """Run kubectl in the namespace; returns what it printed. Raises `AssertionError` with what it said."""
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            check=False, text=True, capture_output=True, input=stdin, timeout=timeout_s,
        )  # fmt: skip
        assert not done.returncode, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def helm(self, *arguments: str) -> str:
        """The same with Helm."""
        done = run(self._helm, *arguments, "--namespace", self.namespace)
        assert not done.returncode, f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.state()}"
        return done.stdout

    def upgrade(self, *given: str) -> None:
        """Install, or upgrade with these values; returns when all workers are ready."""
        values = (
            "kafka.brokers={kafka:9092}", "store.existingSecret=tidemark-store", "topics.replicationFactor=1",
            f"settings.partitions={PARTITIONS}", "resources.requests.cpu=50m", *given,
        )  # fmt: skip
        self.helm("upgrade", "--install", RELEASE, str(CHART), "--wait", "--timeout", "170s", "--set", ",".join(values))
        self.rolled_out()

    def rolled_out(self) -> None:
        """Wait until all workers are of the newest kind, and ready."""
        self.kubectl("rollout", "status", f"statefulset/{WORKERS}", "--timeout=170s")

    def is_ready(self, *pods: str) -> None:
        """Wait for pods."""
        self.kubectl("wait", "--for=condition=Ready", "--timeout=120s", *(f"pod/{pod}" for pod in pods))

    def objects(self) -> set[str]:
        """What a release has made and not taken away again, by kind and name."""
        kinds = "all,configmaps,secrets,serviceaccounts,poddisruptionbudgets,networkpolicies,persistentvolumeclaims"
        return set(self.kubectl("get", kinds, "--output=name").split())

    def pod(self, name: str) -> Any:
        """A pod as Kubernetes has it."""
        return json.loads(self.kubectl("get", "pod", name, "--output=json"))

    def restart(self, pod: str, sign: str) -> None:
        """End the first process of a pod by a signal, and wait until its container runs again and is ready."""
        before = self.restarts(pod)
        self.kubectl("exec", pod, "--", "sh", "-c", f"kill -{sign} 1")
        self.is_restarted(pod, before)

    def is_restarted(self, pod: str, before: int) -> None:
        """Wait until a pod's container runs again and is ready; `before`: how often it had restarted."""
        deadline = time.monotonic() + _RESTART_S
        while self.restarts(pod) == before:
            assert time.monotonic() < deadline, f"{pod} does not end\n{self.state()}"
            time.sleep(_POLL_S)
        self.is_ready(pod)

    def restarts(self, pod: str) -> int:
        """How often a pod's containers have restarted."""
        return sum(status["restartCount"] for status in self.pod(pod)["status"]["containerStatuses"])

    def state(self) -> str:
        """What is there, for who reads a failure."""
        found = self.kubectl("get", "pods", "--output=wide")
        logs = self.kubectl(
            "logs", "--selector=app.kubernetes.io/instance=t", "--all-containers", "--prefix", "--tail=15"
        )
        return f"{found}\n{logs}"


def load_images(engine: Engine, *images: str) -> None:
    """Bring images to the cluster's nodes, by the command that `TIDEMARK_TEST_IMAGE_LOAD` names."""
    command = os.environ.get("TIDEMARK_TEST_IMAGE_LOAD")
    if command is None:
        raise CannotRun("TIDEMARK_TEST_IMAGE_LOAD names no command that brings images to the cluster")
    subprocess.run(
        [*shlex.split(command), *images], check=True, capture_output=True, env=engine.environment, timeout=_LOAD_S
    )
