"""What `deploy/kubernetes/` says: Kubernetes' own schemas take it, and it is true of real servers that it starts.

There is no cluster here. What needs one is in docs/operations/kubernetes.md, as what nobody has tested.
"""

from __future__ import annotations

import copy
import re
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from hubbub import CloseCode
from hubbub.api.http import _READY_TIMEOUT
from hubbub.config import OPTIONS, Config, load, misspelt
from hubbub.core.pacing import pace
from hubbub.planning.figures import COSTS, ENGINES
from support.client import connect
from support.loop import run
from support.redis import Redis
from support.server import Child, get, serving
from support.tokens import SECRET, claims, token

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())

# What is applied to a cluster, by kind.
MANIFESTS: dict[str, dict[str, Any]] = {
    manifest["kind"]: manifest
    for manifest in (yaml.safe_load((FOLDER / name).read_text()) for name in KUSTOMIZATION["resources"])
}
DEPLOYMENT = MANIFESTS["Deployment"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
(CONTAINER,) = POD["containers"]
AUTOSCALER = MANIFESTS["HorizontalPodAutoscaler"]["spec"]
RULES = yaml.safe_load((FOLDER / "adapter.yaml").read_text())["rules"]

# The options that are no secret.
SHOWN = dict(
    line.split("=", 1) for line in (FOLDER / "hubbub.env").read_text().splitlines() if line and not line.startswith("#")
)


def environment(**secret: str) -> dict[str, str]:
    """What a container has in its environment, where the Secret says `secret`."""
    (source,) = CONTAINER["envFrom"]
    (generated,) = KUSTOMIZATION["configMapGenerator"]
    asked_for = {variable["name"]: variable["valueFrom"]["secretKeyRef"]["key"] for variable in CONTAINER["env"]}

    assert generated == {"name": source["configMapRef"]["name"], "envs": ["hubbub.env"]}
    return SHOWN | {name: secret[key] for name, key in asked_for.items()}


def configuration() -> Config:
    """How a pod's server is configured."""
    return load({}, environment(HUBBUB_ENGINE="redis://:password@redis:6379/0", HUBBUB_JWT_SECRET=SECRET))


def per_pod() -> dict[str, float]:
    """How much of everything the autoscaler wants a pod to have, by the metric's name."""
    found = {}
    for metric in AUTOSCALER["metrics"]:
        name, target = (
            (metric["pods"]["metric"]["name"], metric["pods"]["target"])
            if metric["type"] == "Pods"
            else (metric["resource"]["name"], metric["resource"]["target"])
        )

        assert target["type"] == "AverageValue"
        found[name] = quantity(target["averageValue"])
    return found


def quantity(text: str) -> float:
    """A number as Kubernetes writes it, such as 500m or 2Gi."""
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()  # type: ignore[union-attr]  # or the test fails
    return float(number) * {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}[unit]


# ------------------------------------------------------------------------------------------------- to Kubernetes


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_kubernetes_knows_every_field(version: str) -> None:
    """In the oldest version that will do, and in the newest that there are schemas of; nothing is misspelt."""
    for manifest in MANIFESTS.values():
        kubernetes_validate.validate(manifest, version, strict=True)

    wrong = copy.deepcopy(MANIFESTS["Deployment"])
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 140

    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_no_file_is_forgotten() -> None:
    """Whatever lies there is applied, but for what is another program's; and all of it is tested here."""
    applied = KUSTOMIZATION["resources"]

    assert {file.name for file in FOLDER.glob("*.yaml")} == {*applied, "kustomization.yaml", "adapter.yaml"}
    assert len(MANIFESTS) == len(applied)


def test_kustomize_makes_of_it_what_is_tested_here() -> None:
    """The same objects, with the options in a ConfigMap and the image that is named in one place."""
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl, which has kustomize in it")
    made = subprocess.run(["kubectl", "kustomize", FOLDER], capture_output=True, text=True, check=True, timeout=30)
    rendered = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(made.stdout)}
    options = rendered.pop("ConfigMap")
    (container,) = rendered["Deployment"]["spec"]["template"]["spec"]["containers"]
    named = container["envFrom"][0]["configMapRef"]["name"]
    container["envFrom"], image = CONTAINER["envFrom"], container["image"]
    container["image"] = CONTAINER["image"]
    for manifest in rendered.values():
        del manifest["metadata"]["namespace"]

    assert rendered == MANIFESTS
    assert options["data"] == SHOWN
    # Its content is in its name, so that pods get it by a rollout.
    assert named == options["metadata"]["name"] != "hubbub"
    assert image == "registry.example.com/hubbub:1"


def test_what_is_named_is_there() -> None:
    """Selectors select the pods, and ports, backends and targets are those of this folder."""
    labels = DEPLOYMENT["template"]["metadata"]["labels"].items()
    (port,), (service_port,) = CONTAINER["ports"], MANIFESTS["Service"]["spec"]["ports"]
    selectors = [
        DEPLOYMENT["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(spread["labelSelector"]["matchLabels"] for spread in POD["topologySpreadConstraints"]),
    ]
    (rule,) = MANIFESTS["Ingress"]["spec"]["rules"]
    backends = [path["backend"]["service"] for path in rule["http"]["paths"]]
    (allowed,) = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]

    assert [selector for selector in selectors if not selector or not selector.items() <= labels] == []
    assert service_port["targetPort"] == port["name"] == allowed["ports"][0]["port"]
    assert {backend["name"] for backend in backends} == {MANIFESTS["Service"]["metadata"]["name"]}
    assert {backend["port"]["name"] for backend in backends} == {service_port["name"]}
    assert AUTOSCALER["scaleTargetRef"] == {
        "apiVersion": MANIFESTS["Deployment"]["apiVersion"],
        "kind": "Deployment",
        "name": MANIFESTS["Deployment"]["metadata"]["name"],
    }
    # Two would write it: whoever applies the Deployment, and the autoscaler.
    assert "replicas" not in DEPLOYMENT
    assert AUTOSCALER["minReplicas"] == 3


# --------------------------------------------------------------------------------------------------- of a server


def test_each_variable_is_an_option() -> None:
    """None is misspelt or has a value that it cannot have, and the port is the one that is named elsewhere."""
    config, given = configuration(), environment(HUBBUB_ENGINE="nats://nats:4222", HUBBUB_JWT_SECRET=SECRET)
    annotations = DEPLOYMENT["template"]["metadata"]["annotations"]

    assert set(given) <= {option.variable for option in OPTIONS.values()}
    assert misspelt(given) == {}
    assert config.server.port == CONTAINER["ports"][0]["containerPort"] == int(annotations["prometheus.io/port"])
    # One process: it is seen, spread and renewed by Kubernetes, and not by a supervisor in it.
    assert config.server.workers == 1


def test_every_wait_is_longer_than_what_it_waits_for() -> None:
    """A pod is killed after its drain, renewed when another has drained, and cut off by no proxy."""
    config = configuration()
    connections, drain = config.hub.limits.connections, config.server.drain_timeout
    leaving = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    paced = pace(connections, drain)
    hangs = CONTAINER["livenessProbe"]
    tunnel = MANIFESTS["Ingress"]["metadata"]["annotations"]["haproxy.org/timeout-tunnel"]

    assert POD["terminationGracePeriodSeconds"] >= leaving + drain + 10
    # Nobody is away for longer than a moment, though a pod has as many as it may have.
    assert paced == pace(1, drain)
    assert DEPLOYMENT["minReadySeconds"] >= leaving + connections / paced.batch * paced.interval
    assert CONTAINER["readinessProbe"]["timeoutSeconds"] > _READY_TIMEOUT
    assert hangs["periodSeconds"] * hangs["failureThreshold"] == config.server.worker_timeout
    assert hangs["terminationGracePeriodSeconds"] < POD["terminationGracePeriodSeconds"]
    assert float(tunnel.removesuffix("s")) > config.hub.silence_limit + config.transport.close_timeout


def test_the_numbers_are_those_that_were_measured() -> None:
    """What a pod asks for and is scaled by follows from the figures of docs/operations/scaling.md."""
    config, wanted, resources = configuration(), per_pod(), CONTAINER["resources"]
    connections, messages = wanted["websocket_active_connections"], wanted["websocket_messages_processed_per_second"]
    most, least = AUTOSCALER["maxReplicas"], AUTOSCALER["minReplicas"]
    limit = config.hub.limits.connections

    # Bytes of as many sessions as a pod may have, each in two rooms.
    session = (COSTS.shared_session + 2 * COSTS.membership + COSTS.socket) * 2**10
    taken = COSTS.process * 2**20 + limit * session
    large = config.hub.transfers.transfer_bytes + config.transport.unfinished_size
    # The part of a core of one pod, where there are as many as may be, and rooms of twenty are on all of them.
    others = messages * (most - 1)
    busy = messages * (COSTS.shared_publish + 20 * COSTS.deliver) + others * COSTS.hear + connections * COSTS.idle
    engine = messages * most * (ENGINES["redis"].publication + ENGINES["redis"].node * (most - 1))

    # One of the fewest may die.
    assert connections * least / (least - 1) < limit == 2 * connections
    assert taken < quantity(resources["requests"]["memory"])
    assert taken + large < quantity(resources["limits"]["memory"])
    assert busy / 1e6 < wanted["cpu"] == quantity(resources["requests"]["cpu"]) == 0.5
    assert engine / 1e6 <= 0.8


def test_the_autoscaler_counts_what_is_counted() -> None:
    """Each of its metrics is made by a rule of the adapter's, out of what a running server really says."""

    def made(series: str, matches: str = "^(.*)$", **new: str) -> str:
        # ${1} is \1 to Python.
        return re.sub(matches, re.sub(r"\$\{(\d)\}", r"\\\1", new.get("as", "${1}")), series)

    async def main() -> None:
        path = DEPLOYMENT["template"]["metadata"]["annotations"]["prometheus.io/path"]
        async with serving() as server:
            said = (await get(server.address, path)).body.decode()
        queried = {rule["seriesQuery"].partition("{")[0]: rule for rule in RULES}
        rates = {series for series, rule in queried.items() if "rate(" in rule["metricsQuery"]}
        labels = [(rule["seriesQuery"], label) for rule in RULES for label in rule["resources"]["overrides"]]

        assert {made(series, **rule.get("name", {})) for series, rule in queried.items()} == per_pod().keys() - {"cpu"}
        assert [series for series in queried if not re.search(rf"^{series}(\{{.*\}})? \d", said, re.MULTILINE)] == []
        # Only what grows has a rate.
        assert rates == {series for series in queried if f"# TYPE {series} counter" in said}
        # The labels by which it finds a pod are those that it has asked for.
        assert [(query, label) for query, label in labels if f'{label}!=""' not in query] == []

    run(main())


def test_three_pods_are_as_one_and_one_of_them_goes(redis: Redis, tmp_path: Path) -> None:
    """The container's command with the container's environment, three times: as on three nodes, but for the network."""
    program, subcommand, *arguments = CONTAINER["command"]
    probed = [CONTAINER[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    variables = environment(HUBBUB_ENGINE=redis.url, HUBBUB_JWT_SECRET=SECRET) | {
        # Of one Redis for many tests. The proxy that is believed is this test.
        "HUBBUB_REDIS_PREFIX": f"{secrets.token_hex(4)}:",
        "HUBBUB_TRUSTED_PROXIES": "127.0.0.1",
        # Where it would write, if it did.
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }

    def proof(user: str) -> dict[str, str]:
        good = token(claims(sub=user, iat=int(time.time()), exp=int(time.time()) + 600))
        return {"Authorization": f"Bearer {good}", "X-Forwarded-Proto": "https"}

    async def main() -> None:
        async with AsyncExitStack() as stack:
            pods = [
                await stack.enter_async_context(Child.spawned(*arguments, cwd=tmp_path, **variables))  # type: ignore[arg-type]  # strings all
                for _ in range(AUTOSCALER["minReplicas"])
            ]
            statuses = {(await get(pod.address, probe["path"])).status for pod in pods for probe in probed}
            people = [
                await stack.enter_async_context(connect(pod.address, None, headers=proof(f"u{number}"), full=True))
                for number, pod in enumerate(pods)
            ]
            for person in people:
                await person.join("lobby")
            await people[0].say("from one pod", room="lobby")
            for person in people:
                await person.expect("chat", content="from one pod")
            pods[0].signal(signal.SIGTERM)
            code, _ = await people[0].closed()
            status = await pods[0].exit_status()
            await people[1].say("from one of those left", room="lobby")
            await people[2].expect("chat", content="from one of those left")
            goodbye = people[0].heard("goodbye")

            assert (program, subcommand) == ("hubbub", "serve")
            assert {probe["port"] for probe in probed} == {CONTAINER["ports"][0]["name"]}
            assert statuses == {200}
            assert (code, status) == (CloseCode.RESTART, 0)
            assert [message["retry_after"] < 2 for message in goodbye] == [True]

    run(main())

    assert list(tmp_path.iterdir()) == []
