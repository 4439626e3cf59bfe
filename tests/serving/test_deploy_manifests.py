"""compose.yaml, the cluster's manifests and the board fit one another and the server.

Nothing here starts a container: the manifests are checked against the schemas of
Kubernetes, the flags against those of tensorflow_model_server, and the probes are
asked of the development server.
"""

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from serving import server as server_module
from serving.config import ModelConfig

DEPLOY = Path(server_module.__file__).with_name("deploy")
KUBERNETES = DEPLOY / "kubernetes"
KUBERNETES_VERSION = "1.37"
IMAGE = "tensorflow/serving:2.20.0"
# Of tensorflow_model_server 2.20; it prints its usage for any other, and goes on.
FLAG_NAMES = """
    port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms
    rest_api_enable_cors_support enable_batching
    allow_version_labels_for_unavailable_models batching_parameters_file
    enable_per_model_batching_parameters model_config_file
    model_config_file_poll_wait_seconds model_name model_base_path num_load_threads
    num_unload_threads max_num_load_retries load_retry_interval_micros
    file_system_poll_wait_seconds flush_filesystem_caches tensorflow_session_parallelism
    tensorflow_session_config_file tensorflow_intra_op_parallelism
    tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file
    platform_config_file per_process_gpu_memory_fraction saved_model_tags
    grpc_channel_arguments grpc_max_threads enable_model_warmup
    num_request_iterations_for_warmup version monitoring_config_file
    remove_unused_fields_from_bundle_metagraph prefer_tflite_model num_tflite_pools
    num_tflite_interpreters_per_pool enable_signature_method_name_check
    xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler
    thread_pool_factory_config_file mixed_precision skip_initialize_tpu
    enable_grpc_healthcheck_service enable_serialization_as_tensor_content
"""
FLAGS = set(FLAG_NAMES.split())
# Metrics of TensorFlow Serving, ":" for "/", and their labels; a histogram's come in
# three parts.
COUNTERS = {
    "request_count": {"model_name", "status"},
    "batching_session:wrapped_run_count": set(),
}
HISTOGRAMS = {
    "request_latency": {"model_name", "API", "entrypoint"},
    "runtime_latency": {"model_name", "API", "runtime"},
    "model_warmup_latency": {"model_path", "status"},
    "batching_session:queuing_latency": {"thread_pool_name"},
}
METRICS = COUNTERS | {
    f"{name}_{part}": labels | ({"le"} if part == "bucket" else set())
    for name, labels in HISTOGRAMS.items()
    for part in ("bucket", "sum", "count")
}


def load(path: Path) -> dict:
    (document,) = documents(path)
    return document


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def flags(words: list[str]) -> dict[str, str]:
    pairs = [word.removeprefix("--").partition("=") for word in words]
    assert all(equals for _, equals, _ in pairs), words
    result = {name: value for name, _, value in pairs}
    assert len(result) == len(words)
    assert result.keys() <= FLAGS
    return result


def manifests(directory: str) -> dict[tuple[str, str], dict]:
    """Every resource of a kustomization by kind and name, patches left out."""
    root = KUBERNETES / directory
    found = {}
    for resource in load(root / "kustomization.yaml")["resources"]:
        path = root / resource
        assert path.exists(), path
        for document in documents(path) if path.is_file() else []:
            found[document["kind"], document["metadata"]["name"]] = document
    return found


BASE = manifests("base")
KSERVE = manifests("kserve")
COMPOSE = load(DEPLOY / "compose.yaml")
DEPLOYMENT = BASE["Deployment", "products-serving"]
POD = DEPLOYMENT["spec"]["template"]["spec"]
RUNTIME = KSERVE["ServingRuntime", "tensorflow-serving-2.20"]["spec"]
SERVING = COMPOSE["services"]["serving"]


def with_tls() -> dict:
    """The deployment after the patch of the TLS kustomization."""
    deployment = copy.deepcopy(DEPLOYMENT)
    patches = load(KUBERNETES / "tls" / "kustomization.yaml")["patches"]
    (patch,) = [p["patch"] for p in patches if p["target"]["kind"] == "Deployment"]
    for step in yaml.safe_load(patch):
        assert step["op"] == "add"
        *path, last = step["path"].strip("/").split("/")
        node = deployment
        for key in path:
            node = node[int(key) if key.isdecimal() else key]
        assert last == "-"
        node.append(step["value"])
    return deployment


def valid(document: dict) -> None:
    kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("key", BASE, ids="-".join)
def test_the_manifests_fit_the_schemas_of_kubernetes(key):
    valid(BASE[key])


def test_the_schemas_refuse_a_misspelt_key():
    broken = copy.deepcopy(DEPLOYMENT)
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        valid(broken)


def test_the_deployment_with_tls_fits_them_too():
    deployment = with_tls()
    valid(deployment)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    file = flags(container["args"])["ssl_config_file"]
    assert Path(file) == Path(container["volumeMounts"][-1]["mountPath"], "tls.config")


def test_kserves_container_and_probe_would_fit_a_pod():
    # KServe's own schemas are in no package; what it hands to Kubernetes can be
    # checked.
    service = KSERVE["InferenceService", "products"]["spec"]["predictor"]["model"]
    container = RUNTIME["containers"][0] | {"readinessProbe": service["readinessProbe"]}
    valid(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "products"},
            "spec": {"containers": [container], "volumes": RUNTIME["volumes"]},
        }
    )


def test_kserves_service_asks_for_its_runtime():
    service = KSERVE["InferenceService", "products"]["spec"]["predictor"]["model"]
    assert ("ServingRuntime", service["runtime"]) in KSERVE
    formats = [(f["name"], f["version"]) for f in RUNTIME["supportedModelFormats"]]
    assert tuple(service["modelFormat"].values()) in formats
    assert service["protocolVersion"] in RUNTIME["protocolVersions"]
    claim = service["storageUri"].removeprefix("pvc://").split("/")[0]
    assert ("PersistentVolumeClaim", claim) in BASE
    given = flags(RUNTIME["containers"][0]["args"])
    assert given["model_name"] == "{{.Name}}"
    probe = service["readinessProbe"]["httpGet"]
    assert str(probe["port"]) == given["rest_api_port"]


def test_every_kustomization_builds():
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    for directory in ("base", "tls", "kserve"):
        built = subprocess.run(
            [kubectl, "kustomize", str(KUBERNETES / directory)],
            capture_output=True,
            check=True,
            timeout=60,
        )
        built = {d["kind"]: d for d in yaml.safe_load_all(built.stdout)}
        files = built["ConfigMap"]["data"]
        assert files.keys() == {"models.config", "batching.config", "monitoring.config"}
        for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy"):
            if kind in built:
                valid(built[kind])


def test_everything_selects_the_pods_of_the_deployment_and_no_others():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    spread = POD["topologySpreadConstraints"][0]["labelSelector"]
    budget = BASE["PodDisruptionBudget", "products-serving"]["spec"]["selector"]
    policy = BASE["NetworkPolicy", "products-serving"]["spec"]["podSelector"]
    for selector in (DEPLOYMENT["spec"]["selector"], spread, budget, policy):
        assert selector["matchLabels"] == labels
    for name in ("products-serving", "products-serving-rest"):
        assert BASE["Service", name]["spec"]["selector"] == labels
    scaled = BASE["HorizontalPodAutoscaler", "products-serving"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert "replicas" not in DEPLOYMENT["spec"]


def test_every_place_runs_the_same_image_under_the_same_settings():
    (container,) = POD["containers"]
    served = (SERVING, container, RUNTIME["containers"][0])
    assert {place["image"] for place in served} == {IMAGE}
    compose = flags(SERVING["command"])
    cluster = flags(container["args"])
    kserve = flags(RUNTIME["containers"][0]["args"])
    # The cluster's clients must find new pods; compose has one server.
    cluster.pop("grpc_channel_arguments")
    assert cluster == compose
    same = kserve.keys() - {"model_name", "model_base_path", "port", "rest_api_port"}
    assert {name: compose[name] for name in same} == {n: kserve[n] for n in same}


def test_threads_equal_the_cores_that_the_server_may_use():
    cores = str(SERVING["cpus"])
    resources = POD["containers"][0]["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"] == cores
    for name in ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"):
        assert flags(SERVING["command"])[name] == cores


def test_every_file_that_a_flag_names_is_mounted():
    mounted = {path.name for path in (DEPLOY / "config").iterdir()}
    generator = load(DEPLOY / "config" / "kustomization.yaml")["configMapGenerator"][0]
    for name, value in flags(SERVING["command"]).items():
        if name.endswith("_file"):
            assert value.startswith("/config/")
            assert Path(value).name in mounted
            assert Path(value).name in generator["files"]
    assert "./config:/config:ro" in SERVING["volumes"]
    (config,) = [v for v in POD["volumes"] if v["name"] == "config"]
    assert config["configMap"]["name"] == generator["name"]
    (models,) = [v for v in POD["volumes"] if v["name"] == "models"]
    claim = models["persistentVolumeClaim"]
    assert ("PersistentVolumeClaim", claim["claimName"]) in BASE
    assert claim["readOnly"]


def test_the_pod_outlives_its_longest_request():
    (container,) = POD["containers"]
    sleep_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    longest_s = int(flags(container["args"])["rest_api_timeout_in_ms"]) / 1000
    assert longest_s < sleep_s < POD["terminationGracePeriodSeconds"]
    # Without it the server is process 1 and never notices SIGTERM.
    assert POD["shareProcessNamespace"] is True
    assert SERVING["init"] is True


def test_nothing_runs_with_rights_that_it_does_not_need():
    (container,) = POD["containers"]
    for context in (
        container["securityContext"],
        RUNTIME["containers"][0]["securityContext"],
    ):
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert all(mount.get("readOnly") for mount in container["volumeMounts"][:2])
    for service in COMPOSE["services"].values():
        assert service["cap_drop"] == ["ALL"]


def test_compose_publishes_on_this_machine_only_and_pins_every_image():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_dir()
                assert volume.endswith(":ro")


def health_check(rest: str) -> int:
    """Runs compose's health check against a server; the exit code of bash."""
    word, *command = SERVING["healthcheck"]["test"]
    assert word == "CMD"
    script = command[-1].replace("$$", "$")
    assert "127.0.0.1/8501" in script
    command[-1] = script.replace("127.0.0.1/8501", rest.replace(":", "/"))
    return subprocess.run(command, timeout=20, capture_output=True).returncode


@pytest.fixture
def emptied(local, tools, written, tmp_path):
    """A server whose only version has been unloaded, its directory being gone."""
    version = tmp_path / "products" / "1"
    shutil.copytree(written.products, version)
    config = ModelConfig("products", version.parent, labels={"stable": 1})
    server = local(config)
    server.before = health_check(server.url.split("/")[2])
    version.rename(tmp_path / "gone")
    tools.wait_until(lambda: server.store.available() == {"products": []})
    return server


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_health_check_passes_while_the_label_is_served_and_not_after(
    server, emptied
):
    assert health_check(server.rest) == 0
    assert emptied.before == 0
    assert health_check(emptied.url.split("/")[2]) != 0
    closed = "127.0.0.1:1"
    assert health_check(closed) != 0


def test_the_readiness_path_answers_only_while_the_version_is_available(
    server, emptied, tools
):
    probe = POD["containers"][0]["readinessProbe"]["httpGet"]
    ports = {port["name"] for port in POD["containers"][0]["ports"]}
    assert probe["port"] in ports
    path = probe["path"].removeprefix("/v1/models")
    assert tools.http(server.url + path)[0] == 200
    assert tools.http(emptied.url + path)[0] != 200
    # Why the bare status path would not do.
    status, reply = tools.http(f"{emptied.url}/products")
    assert status == 200
    assert reply["model_version_status"][0]["state"] == "END"


def test_prometheus_scrapes_the_page_that_the_server_opens():
    (job,) = load(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    page = (DEPLOY / "config" / "monitoring.config").read_text("utf-8")
    assert f'path: "{job["metrics_path"]}"' in page
    port = flags(SERVING["command"])["rest_api_port"]
    assert job["static_configs"] == [{"targets": [f"serving:{port}"]}]
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == job["metrics_path"]
    assert annotations["prometheus.io/port"] == port
    kserve = RUNTIME["annotations"]
    assert kserve["prometheus.kserve.io/path"] == job["metrics_path"]


def test_grafana_finds_its_source_and_its_board():
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = load(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = load(provisioning / "dashboards" / "dashboards.yaml")["providers"]
    grafana = COMPOSE["services"]["grafana"]
    mounted = {v.split(":")[1]: v.split(":")[0] for v in grafana["volumes"]}
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    board_file = DEPLOY / mounted[str(Path(home).parent)] / Path(home).name
    board = json.loads(board_file.read_text("utf-8"))
    sources = re.findall(r"'uid': '([^']+)'", str(board["panels"]))
    assert set(sources) == {source["uid"]}


def test_the_board_asks_for_metrics_and_labels_that_the_server_has():
    file = DEPLOY / "grafana" / "dashboards" / "tensorflow_serving.json"
    panels = json.loads(file.read_text("utf-8"))["panels"]
    shown = set()
    for query in (t["expr"] for panel in panels for t in panel["targets"]):
        names = set(re.findall(r":tensorflow:serving:([\w:]+)", query))
        assert names <= METRICS.keys(), query
        shown |= names
        used = set(re.findall(r"[{,](\w+)(?:=~|!=|=)", query))
        for group in re.findall(r"by \(([^)]*)\)", query):
            used |= {label.strip() for label in group.split(",")}
        # `up` is Prometheus's own.
        known = set().union(*(METRICS[name] for name in names), {"job"})
        assert used <= known, query
    assert shown >= COUNTERS.keys()
    for name in HISTOGRAMS:
        assert any(metric.startswith(name) for metric in shown)
    titles = " ".join(panel["title"] for panel in panels)
    for subject in ("by status", "errors", "Latency", "Warm-up"):
        assert subject in titles
    quantiles = {t["legendFormat"] for p in panels for t in p["targets"]}
    assert {"p50", "p95", "p99"} <= quantiles
