"""The configuration files are what TensorFlow Serving reads, and TLS works."""

import importlib.util
import shutil
import subprocess
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
)

from serving import server as server_module
from serving.config import read_model_config_file

DEPLOY = Path(server_module.__file__).with_name("deploy")
CONFIG = DEPLOY / "config"

# The messages that tensorflow-serving-api leaves out, as TensorFlow Serving 2.20
# defines them: field name to number and type. The wrappers of batching are messages
# with one field, `value`.
MESSAGES = {
    "Int64Value": {"value": (1, "int64")},
    "BoolValue": {"value": (1, "bool")},
    "StringValue": {"value": (1, "string")},
    "BatchingParameters": {
        "max_batch_size": (1, "Int64Value"),
        "batch_timeout_micros": (2, "Int64Value"),
        "max_enqueued_batches": (3, "Int64Value"),
        "num_batch_threads": (4, "Int64Value"),
        "thread_pool_name": (5, "StringValue"),
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, "BoolValue"),
        "max_execution_batch_size": (9, "Int64Value"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    },
}


def message(name: str):
    """An empty message of `MESSAGES`, in a pool of its own."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="deploy.proto", package="deploy", syntax="proto3"
    )
    for message_name, fields in MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for field_name, (number, kind) in fields.items():
            label, _, kind = kind.rpartition(" ")
            field = described.field.add(name=field_name, number=number)
            field.label = (
                field_type.LABEL_REPEATED if label else field_type.LABEL_OPTIONAL
            )
            if kind in MESSAGES:
                field.type = field_type.TYPE_MESSAGE
                field.type_name = f".deploy.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"deploy.{name}")
    return message_factory.GetMessageClass(descriptor)()


def parse(file: Path, name: str):
    return text_format.Parse(file.read_text("utf-8"), message(name))


def test_an_unknown_field_is_refused():
    with pytest.raises(text_format.ParseError, match="no field"):
        text_format.Parse("max_batchsize { value: 1 }", message("BatchingParameters"))


def test_batching_holds_the_values_that_the_guide_gives_for_two_cores():
    batching = parse(CONFIG / "batching.config", "BatchingParameters")
    values = (
        batching.max_batch_size.value,
        batching.batch_timeout_micros.value,
        batching.num_batch_threads.value,
    )
    assert values == (32, 20_000, 1)
    assert not batching.allowed_batch_sizes
    guide = (DEPLOY.parents[1] / "docs" / "serving.md").read_text("utf-8")
    assert "| 32, 20,000, 1 (`batching.config`) | 1.37 | 1.28 |" in guide


def test_monitoring_opens_the_page():
    monitoring = parse(CONFIG / "monitoring.config", "MonitoringConfig")
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_models_are_read_by_the_development_server(tmp_path):
    text = (CONFIG / "models.config").read_text("utf-8")
    (tmp_path / "products").mkdir()
    file = tmp_path / "models.config"
    file.write_text(text.replace("/models/", f"{tmp_path}/"))
    (config,) = read_model_config_file(file)
    assert (config.name, config.policy, config.versions) == (
        "products",
        "specific",
        (1,),
    )
    assert config.labels == {"stable": 1, "canary": 1}


def test_the_other_policy_that_models_config_speaks_of_is_one():
    request = model_management_pb2.ReloadConfigRequest()
    text = (CONFIG / "models.config").read_text("utf-8")
    assert "`latest { num_versions: 1 }`" in text
    head, _, tail = text.rpartition("specific {")
    text_format.Parse(
        head + "latest { num_versions: 1 }" + tail.partition("}")[2], request.config
    )
    (model,) = request.config.model_config_list.config
    assert model.model_version_policy.latest.num_versions == 1


def test_the_example_of_tls_has_the_shape():
    example = parse(CONFIG / "tls.config.example", "SSLConfig")
    assert example.server_key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert example.client_verify


def test_no_private_key_can_be_committed_by_accident():
    ignored = (DEPLOY / ".gitignore").read_text("utf-8").split("\n")
    assert {"tls.config", "*.key", "*.pem"} <= set(ignored)
    # The markers alone: a key's body is longer than any line of an example.
    for file in DEPLOY.rglob("*"):
        if file.is_file() and file.suffix not in (".pyc", ".json"):
            assert "PRIVATE KEY-----\nMI" not in file.read_text("utf-8"), file


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """An authority, and a server and a client that it has signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("pem")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=directory, check=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-subj", "/CN=authority", "-keyout", "authority.key",
        "-out", "authority.pem", "-days", "2")  # fmt: skip
    for name in ("server", "client"):
        run("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key",
            "-out", f"{name}.csr")  # fmt: skip
        (directory / "names").write_text("subjectAltName=DNS:localhost")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "authority.pem", "-CAkey",
            "authority.key", "-CAcreateserial", "-days", "2", "-extfile", "names",
            "-out", f"{name}.pem")  # fmt: skip
    return directory


@pytest.fixture
def script(capsys):
    """Runs a script of the directory in this process: exit code and errors."""

    def run(name: str, *arguments: object) -> tuple[int, str]:
        spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main([str(word) for word in arguments]), capsys.readouterr().err

    return run


def write_tls(script, pem: Path, to: Path) -> tuple[int, str]:
    return script(
        "tls_config",
        *("--key", pem / "server.key", "--certificate", pem / "server.pem"),
        *("--client-authority", pem / "authority.pem", "--to", to),
    )


def test_tls_config_holds_the_pem_files_and_only_its_owner_reads_it(
    script, pem, tmp_path
):
    file = tmp_path / "tls.config"
    assert write_tls(script, pem, file) == (0, "")
    config = parse(file, "SSLConfig")
    assert config.server_key == (pem / "server.key").read_text()
    assert config.server_cert == (pem / "server.pem").read_text()
    assert config.custom_ca == (pem / "authority.pem").read_text()
    assert config.client_verify
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["tls.config"]


def test_a_key_of_another_certificate_is_refused(script, pem, tmp_path):
    code, error = script(
        "tls_config",
        *("--key", pem / "client.key", "--certificate", pem / "server.pem"),
        *("--to", tmp_path / "tls.config"),
    )
    assert code == 2
    assert error.startswith("tls_config.py: --key and --certificate do not go")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_certificate_in_the_place_of_the_key_is_refused(script, pem, tmp_path):
    code, error = script(
        "tls_config",
        *("--key", pem / "server.pem", "--certificate", pem / "server.pem"),
        *("--to", tmp_path / "tls.config"),
    )
    assert code == 2
    assert "expected a PRIVATE KEY in PEM. Received: -----BEGIN CERT" in error


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Keeps what it is sent, and refuses labels as TensorFlow Serving does."""

    def __init__(self) -> None:
        self.received: list = []

    def HandleReloadConfigRequest(self, request, context):
        self.received.append(request.config)
        reply = model_management_pb2.ReloadConfigResponse()
        (model,) = request.config.model_config_list.config
        if model.version_labels["canary"] == 2:
            reply.status.error_code = 9
            reply.status.error_message = "version 2 is not available for inference"
        return reply


def serve(service, credentials=None) -> tuple[grpc.Server, int]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


def test_reload_sends_the_file_over_tls_with_the_clients_certificate(
    script, pem, tmp_path
):
    file = tmp_path / "tls.config"
    assert write_tls(script, pem, file) == (0, "")
    tls = parse(file, "SSLConfig")
    # What TensorFlow Serving makes of the message.
    credentials = grpc.ssl_server_credentials(
        [(tls.server_key.encode(), tls.server_cert.encode())],
        root_certificates=tls.custom_ca.encode(),
        require_client_auth=tls.client_verify,
    )
    service = ModelService()
    server, port = serve(service, credentials)
    call = ("--server", f"localhost:{port}", CONFIG / "models.config")
    known = ("--authority", pem / "authority.pem")
    shown = ("--key", pem / "client.key", "--certificate", pem / "client.pem")
    try:
        refused = script("reload", *call, *known, "--timeout", 5)
        answered = script("reload", *call, *known, *shown)
    finally:
        server.stop(0).wait()
    assert refused[0] == 1
    assert refused[1].startswith("reload.py: UNAVAILABLE: ")
    assert answered == (0, "")
    (config,) = service.received
    assert config.model_config_list.config[0].base_path == "/models/products"


def test_reload_says_why_the_server_refused(script, tmp_path):
    text = (CONFIG / "models.config").read_text("utf-8")
    head, _, tail = text.rpartition("value: 1")
    file = tmp_path / "models.config"
    file.write_text(f"{head}value: 2{tail}")
    server, port = serve(ModelService())
    try:
        result = script("reload", "--server", f"127.0.0.1:{port}", file)
    finally:
        server.stop(0).wait()
    assert result == (
        1,
        "reload.py: FAILED_PRECONDITION: version 2 is not available for inference\n",
    )


def test_reload_never_sends_a_file_without_models(script, tmp_path):
    file = tmp_path / "models.config"
    file.write_text("model_config_list { }")
    code, error = script("reload", "--server", "127.0.0.1:1", file)
    assert code == 2
    assert error.endswith("expected a model_config_list with models.\n")
